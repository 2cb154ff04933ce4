import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, expect, it } from 'vitest';

const dir = mkdtempSync(join(tmpdir(), 'topknot-compare-'));
afterAll(() => rmSync(dir, { recursive: true }));
const script = fileURLToPath(new URL('../../bench/compare.mjs', import.meta.url));

interface Row {
  size: string;
  median_ms: number;
  p99_ms?: number;
  limit_share?: number | null;
  recall?: { topknot: number };
}

function compare(before: Row[], after: Row[], ...options: string[]) {
  const files = [before, after].map((rows, i) => {
    const file = join(dir, `${i}.json`);
    const full = { case: 'c', backend: 'cpu:avx2', threads: 4, limit_share: 0.5 };
    writeFileSync(file, rows.map((r) => `${JSON.stringify({ ...full, p99_ms: r.median_ms, ...r })}\n`).join(''));
    return file;
  });
  const { stdout, stderr, status } = spawnSync(process.execPath, [script, ...files, ...options], { encoding: 'utf8' });
  const verdicts = Object.fromEntries(
    stdout
      .split('\n')
      .filter(Boolean)
      .map((line) => [
        line.split(' | ')[1],
        / (SLOWER|LESS RECALL|faster|no change|only in .*)$/.exec(line)?.[1]?.replace(/ in .*/, ''),
      ]),
  );
  return { verdicts, status, stderr };
}

it('tells a slower row from a slower machine, and from noise', () => {
  const before: Row[] = [
    { size: 'same', median_ms: 10 },
    { size: 'machine', median_ms: 10 },
    { size: 'slower', median_ms: 10 },
    { size: 'faster', median_ms: 10 },
    { size: 'spread', median_ms: 10, p99_ms: 30 },
    { size: 'no limit', median_ms: 10, limit_share: null },
    { size: 'gone', median_ms: 10 },
  ];
  const after: Row[] = [
    { size: 'same', median_ms: 10.5, limit_share: 0.5 },
    { size: 'machine', median_ms: 15, limit_share: 0.5 }, // the limits took 1.5 times as long too
    { size: 'slower', median_ms: 15, limit_share: 5 / 15 },
    { size: 'faster', median_ms: 8, limit_share: 5 / 8 },
    { size: 'spread', median_ms: 14, p99_ms: 30, limit_share: 5 / 14 },
    { size: 'no limit', median_ms: 10, limit_share: null },
    { size: 'new', median_ms: 10 },
  ];
  expect(compare(before, after)).toMatchObject({
    verdicts: {
      same: 'no change',
      machine: 'no change',
      slower: 'SLOWER',
      faster: 'faster',
      spread: 'no change',
      'no limit': 'no change',
      gone: 'only',
      new: 'only',
    },
    status: 1,
  });
  expect(compare(before, after, '--noise', '60')).toMatchObject({ verdicts: { slower: 'no change' }, status: 0 });
  expect(compare(before, before).status).toBe(0);
});

it('an approximate search that finds less is worse, however fast', () => {
  const rows = (recall: number, ms: number): Row[] => [{ size: 'ann', median_ms: ms, recall: { topknot: recall } }];
  expect(compare(rows(0.9, 10), rows(0.85, 5))).toMatchObject({ verdicts: { ann: 'LESS RECALL' }, status: 1 });
  expect(compare(rows(0.9, 10), rows(0.895, 10))).toMatchObject({ verdicts: { ann: 'no change' }, status: 0 });
});

it('says how it is used', () => {
  const { status, stderr } = compare([], [], 'a third file');
  expect([status, stderr]).toEqual([2, expect.stringContaining('usage')]);
});
