import { readFileSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';

/** book id → {title, authors, year}, from the catalogue's CSV. */
export async function readBooks(path) {
  const rows = parseCsv(gunzipSync(readFileSync(path)).toString('utf8'));
  return new Map(
    rows
      .slice(1)
      .map(([id, title, authors, year]) => [Number(id), { title, authors, year: Number(year) || undefined }]),
  );
}

/** Fields may be quoted, quotes within them doubled. */
function parseCsv(text) {
  return text
    .trimEnd()
    .split('\n')
    .map((row) =>
      [...row.matchAll(/(?:^|,)(?:"((?:[^"]|"")*)"|([^,]*))/g)].map(
        ([, quoted, plain]) => quoted?.replaceAll('""', '"') ?? plain,
      ),
    );
}
