// npm run bench:compare -- BEFORE.json AFTER.json [--noise PERCENT]
// Rows of both files side by side. Times are scaled by what the machine itself did (peers shared by both runs), since a
// shared machine is faster on one day than on another; a change within the noise bound is called none. Exit status 1
// when a row became slower.
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

const keyOf = (row) => [row.case, row.size, row.backend, row.threads].join(' | ');
const read = (file) =>
  readFileSync(file, 'utf8')
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line));
const [before, after] = positionals.map((file) => new Map(read(file).map((row) => [keyOf(row), row])));

/** How much slower the machine was in the second run, by the peers that both timed in this row; 1 without peers. */
function machineRatio(a, b) {
  const shared = Object.keys(a.peers).filter((name) => b.peers[name] > 0 && a.peers[name] > 0);
  return shared.length > 0 ? median(shared.map((name) => b.peers[name] / a.peers[name])) : 1;
}

let slower = 0;
for (const [key, a] of before) {
  const b = after.get(key);
  if (!b) {
    console.log(`${key}: only in ${positionals[0]}`);
    continue;
  }
  const machine = machineRatio(a, b);
  const ratio = b.median_ms / a.median_ms / machine;
  // A row whose own repetitions spread widely cannot show a small change.
  const spread = Math.max(a.p99_ms / a.median_ms, b.p99_ms / b.median_ms) - 1;
  const bound = Math.max(noise, Math.min(spread / 2, 0.5));
  const verdict = ratio > 1 + bound ? 'SLOWER' : ratio < 1 / (1 + bound) ? 'faster' : 'no change';
  if (verdict === 'SLOWER') slower++;
  const scaled = machine === 1 ? '' : `, machine ${machine.toFixed(2)}x`;
  console.log(
    `${key}: ${a.median_ms} -> ${b.median_ms} ms (${ratio.toFixed(2)}x${scaled}; noise ±${Math.round(100 * bound)}%) ${verdict}`,
  );
}
for (const key of after.keys()) if (!before.has(key)) console.log(`${key}: only in ${positionals[1]}`);
process.exitCode = slower > 0 ? 1 : 0;
