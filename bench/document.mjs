// npm run bench:document -- bench/results/NAME.json [bench/results/OTHER.json ...]
// Puts the rows of committed results into docs/performance.md, between its markers, so that no figure there is typed.
import { readFileSync, writeFileSync } from 'node:fs';
import { basename } from 'node:path';
import { fileURLToPath } from 'node:url';
import { milliseconds } from './lib/table.mjs';

const files = process.argv.slice(2);
if (files.length === 0) {
  console.error('usage: npm run bench:document -- bench/results/NAME.json [more.json ...]');
  process.exit(2);
}
const page = fileURLToPath(new URL('../docs/performance.md', import.meta.url));
const [begin, end] = ['<!-- results -->', '<!-- /results -->'];

/** What one run printed. */
function section(file) {
  const stem = file.replace(/\.jsonl?$/, '');
  const rows = readFileSync(file, 'utf8')
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line));
  const about = JSON.parse(readFileSync(`${stem}.machine.json`, 'utf8'));

  function line(row) {
    const peers = Object.entries(row.peers).map(([name, ms]) => `${name} ${(ms / row.median_ms).toFixed(2)}×`);
    const share = row.limit_share === null ? '' : `${Math.round(100 * row.limit_share)}%`;
    const rate = row.gflops === null ? '' : row.gflops.toFixed(1);
    const others = about.other_cores[`${row.case} ${row.size}`];
    const cells = [
      row.case,
      row.size,
      milliseconds(row.median_ms),
      milliseconds(row.p99_ms),
      rate,
      share,
      milliseconds(row.loop_delay_p99_ms),
      peers.join(', '),
      others === null ? '' : others.toFixed(1),
    ];
    return `| ${cells.join(' | ')} |`;
  }

  const disturbed = rows.filter((row) => about.other_cores[`${row.case} ${row.size}`] > 0.5).length;
  const warning = `**${disturbed} of ${rows.length} rows are disturbed**: others used the machine meanwhile. Their times and shares (some above 100%) say little; the
peers took the same turns, so the ratios say more. They are no claim until a quiet run replaces them.
`;
  const versions = Object.entries(about.peers).filter(([, version]) => version);
  return `From [${basename(file)}](../bench/results/${basename(file)}) ([chart](../bench/results/${basename(stem)}.svg)): ${about.cpu}, ${about.cores} cores,
${about.threads} threads, ${about.isa}, Node ${about.node}, commit ${about.commit.slice(0, 8)}, ${about.date.slice(0, 10)}, by \`${about.command}\`.
${versions.length > 0 ? `Peers: ${versions.map(([name, version]) => `${name} ${version}`).join(', ')}.\n` : ''}${disturbed > 0 ? `\n${warning}` : ''}
| case | size | median ms | p99 ms | GFLOP/s | of limit | loop p99 ms | peers' time over ours | others' cores |
|---|---|--:|--:|--:|--:|--:|---|--:|
${rows.map(line).join('\n')}`;
}

const block = `${begin}\n${files.map(section).join('\n\n')}\n${end}`;
const text = readFileSync(page, 'utf8');
const [from, to] = [text.indexOf(begin), text.indexOf(end)];
if (from < 0 || to < from) throw new Error(`docs/performance.md: expected the markers ${begin} and ${end}`);
writeFileSync(page, text.slice(0, from) + block + text.slice(to + end.length));
