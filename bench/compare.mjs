// npm run bench:compare -- BEFORE.json AFTER.json [--noise PERCENT]
// Rows of both files side by side. Times are scaled by the limits that each run measured beside the row, since a shared
// machine is faster on one day than on another; a change within the noise bound is called none. Exit status 1 when a row
// became slower, or an approximate search finds less.
import { readFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { median } from './lib/stats.mjs';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { noise: { type: 'string', default: '10' } },
});
if (positionals.length !== 2) {
  console.error('usage: npm run bench:compare -- BEFORE.json AFTER.json [--noise PERCENT]');
  process.exit(2);
}
const noise = Number(values.noise) / 100;
if (!(noise >= 0)) throw new Error(`--noise: expected a percentage but received '${values.noise}'`);

/** Parallel builds differ, and 1000 queries tell recall to about this. */
const recallNoise = 0.01;

const keyOf = (row) => [row.case, row.size, row.backend, row.threads].join(' | ');
const read = (file) =>
  readFileSync(file, 'utf8')
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line));
const [before, after] = positionals.map((file) => new Map(read(file).map((row) => [keyOf(row), row])));

/** The time that the machine's limits allowed a row: it changes with the machine, not with topknot. */
const floorOf = (row) => (row.limit_share > 0 ? row.limit_share * row.median_ms : null);
const floorRatio = (a, b) => (b && floorOf(a) && floorOf(b) ? floorOf(b) / floorOf(a) : null);

/** How much slower the machine was in the second run, for rows that have no limit of their own. */
const overall = median([...before].map(([key, a]) => floorRatio(a, after.get(key))).filter((x) => x !== null)) ?? 1;

const recallChange = (a, b) => (a.recall && b.recall ? `, recall ${a.recall.topknot} -> ${b.recall.topknot}` : '');

let worse = 0;
for (const [key, a] of before) {
  const b = after.get(key);
  if (!b) {
    console.log(`${key}: only in ${positionals[0]}`);
    continue;
  }
  const machine = floorRatio(a, b) ?? overall;
  const ratio = b.median_ms / a.median_ms / machine;
  // A row whose own repetitions spread widely cannot show a small change.
  const spread = Math.max(a.p99_ms / a.median_ms, b.p99_ms / b.median_ms) - 1;
  const bound = Math.max(noise, Math.min(spread / 2, 0.5));
  const lost = (a.recall?.topknot ?? 0) - (b.recall?.topknot ?? 0) > recallNoise;
  const verdict =
    ratio > 1 + bound ? 'SLOWER' : lost ? 'LESS RECALL' : ratio < 1 / (1 + bound) ? 'faster' : 'no change';
  if (verdict === 'SLOWER' || lost) worse++;
  console.log(
    `${key}: ${a.median_ms} -> ${b.median_ms} ms (${ratio.toFixed(2)}x, machine ${machine.toFixed(2)}x; noise ±${Math.round(100 * bound)}%)${recallChange(a, b)} ${verdict}`,
  );
}
for (const key of after.keys()) if (!before.has(key)) console.log(`${key}: only in ${positionals[1]}`);
process.exitCode = worse > 0 ? 1 : 0;
