// From Parquet to a CSR matrix with string ids, against what DuckDB itself needs to scan and count the same columns with
// as many threads.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Interactions } from '../../dist/index.js';

export const name = 'ingestion';

const size = (label, rows, users, items, quick = false) => ({ label, rows, users, items, quick });

export const sizes = [
  size('20M rows, string ids', 20_000_000, 500_000, 100_000),
  size('20k rows, string ids', 20_000, 1000, 400, true),
];

async function connect(threads) {
  const { DuckDBInstance } = await import('@duckdb/node-api');
  return (await DuckDBInstance.create(':memory:', { threads: String(threads) })).connect();
}

export async function setup({ rows, users, items }, { threads, log }) {
  let maker;
  try {
    maker = await connect(1); // one thread: the same rows every time
  } catch (error) {
    log(`  skipped: ${error.message}`);
    return null;
  }
  const folder = mkdtempSync(join(tmpdir(), 'topknot-bench-'));
  const file = join(folder, 'interactions.parquet');
  const source = `read_parquet('${file.replaceAll("'", "''")}')`;
  await maker.run('SELECT setseed(0.5)');
  // Squares and cubes of uniform numbers crowd at the low ids, as popularity does.
  await maker.run(`COPY (
    SELECT format('user-{:06d}', (${users} * pow(random(), 2))::INT) AS userId,
           format('item-{:06d}', (${items} * pow(random(), 3))::INT) AS itemId,
           (1 + floor(random() * 5))::FLOAT AS rating
    FROM range(${rows})) TO '${file.replaceAll("'", "''")}' (FORMAT parquet)`);
  maker.closeSync();
  return { folder, file, source, connection: await connect(threads) };
}

async function ingest({ file }) {
  const data = await Interactions.read(file, { user: 'userId', item: 'itemId', value: 'rating' });
  const matrix = await data.matrix();
  const found = { users: data.users.size, items: data.items.size, pairs: matrix.nnz };
  data.dispose();
  return found;
}

export async function run(state) {
  await ingest(state);
}

export async function verify(state) {
  const found = await ingest(state);
  const reader = await state.connection.runAndReadAll(
    `SELECT count(DISTINCT userId), count(DISTINCT itemId), count(DISTINCT (userId, itemId)) FROM ${state.source}`,
  );
  const wanted = reader.getRows()[0].map(Number);
  if (Object.values(found).some((n, i) => n !== wanted[i]))
    throw new Error(`ingestion: expected ${wanted} users, items and pairs but received ${Object.values(found)}`);
}

export const peers = ({ connection, source }) => [
  {
    name: 'DuckDB scan and distinct count',
    run: () => connection.runAndReadAll(`SELECT count(DISTINCT userId), count(DISTINCT itemId) FROM ${source}`),
  },
];

export function teardown({ folder, connection }) {
  connection.closeSync();
  rmSync(folder, { recursive: true });
}
