// npm run bench: verifies each case against a float64 reference, times it beside its peers and the machine's limits,
// and writes a table, JSON rows and a chart. `npm run bench -- --help` lists the options, bench/README.md the fields.
import { readdirSync, writeFileSync } from 'node:fs';
import { isa, setThreads, threads } from '../dist/index.js';
import { chart } from './lib/chart.mjs';
import { cacheMib, floorMs, Limits } from './lib/limits.mjs';
import { machine } from './lib/machine.mjs';
import { interleave } from './lib/measure.mjs';
import { readOptions, usage } from './lib/options.mjs';
import { recallChart } from './lib/recall-chart.mjs';
import { median, quantile, rounded } from './lib/stats.mjs';
import { table } from './lib/table.mjs';

async function loadCases(wanted) {
  const files = readdirSync(new URL('./cases/', import.meta.url))
    .filter((f) => f.endsWith('.mjs'))
    .sort();
  const cases = await Promise.all(files.map((f) => import(`./cases/${f}`)));
  const unknown = wanted.filter((name) => !cases.some((c) => c.name === name));
  if (unknown.length > 0)
    throw new Error(`--case: no case called ${unknown.join(', ')}; there are ${cases.map((c) => c.name).join(', ')}`);
  return wanted.length > 0 ? cases.filter((c) => wanted.includes(c.name)) : cases;
}

/** Verifies and times one size of a case. Null when the case skips it. */
async function runSize(benchCase, size, context, limits) {
  const state = await benchCase.setup(size, context);
  if (!state) return null;
  const peers = context.peers && benchCase.peers ? await benchCase.peers(state, size, context) : [];
  try {
    await benchCase.verify?.(state, size, context);
    const ours = { name: 'topknot', run: () => benchCase.run(state, size), watchLoop: true };
    const results = await interleave([ours, ...peers, ...limits.contestants()], { budgetMs: context.budgetMs });
    const { samples, loopDelayMs, otherCores } = results.get('topknot');
    context.otherCores[`${benchCase.name} ${size.label}`] = rounded(otherCores);
    if (otherCores > 0.5) context.log(`  disturbed: other processes used ${otherCores.toFixed(1)} cores`);
    const work = { flops: benchCase.flops?.(size, state) ?? null, bytes: benchCase.bytes?.(size, state) ?? null };
    const limit = limits.take();
    const ms = median(samples);
    const floor = floorMs(work, limit);
    const rate = (amount) => (amount === null ? null : rounded(amount / ms / 1e6));
    return {
      case: benchCase.name,
      size: size.label,
      backend: `cpu:${isa()}`,
      threads: threads(),
      median_ms: rounded(ms),
      p99_ms: rounded(quantile(samples, 0.99)),
      gflops: rate(work.flops),
      gbps: rate(work.bytes),
      limit_share: floor === null ? null : rounded(floor / ms),
      loop_delay_p99_ms: rounded(loopDelayMs),
      peers: Object.fromEntries(peers.map((p) => [p.name, rounded(median(results.get(p.name).samples))])),
      ...benchCase.extra?.(state, size),
    };
  } finally {
    for (const peer of peers) await peer.close?.();
    await benchCase.teardown?.(state, size, context);
  }
}

async function main() {
  const options = readOptions(process.argv.slice(2));
  if (options.help) return console.log(usage);
  if (options.threads) setThreads(options.threads);
  const cases = await loadCases(options.cases);
  const versions = {};
  const context = {
    ...options,
    threads: threads(),
    versions,
    otherCores: {},
    log: (line) => console.error(line),
    /** Opens a peer, or says why it is left out. */
    async open(name, opener) {
      try {
        const peer = await opener();
        versions[name] = peer.version;
        return peer;
      } catch (error) {
        if (!(name in versions)) console.error(`  without ${name}: ${error.message}`);
        versions[name] = null;
        return null;
      }
    },
  };
  const about = machine({
    threads: threads(),
    cacheMib,
    peers: versions,
    command: ['npm run bench --', ...process.argv.slice(2)].join(' '),
  });
  const limits = new Limits(options.quick ? 2 ** 26 : 2 ** 28);
  const rows = [];
  for (const benchCase of cases) {
    const isWanted = ({ label }) => options.sizes.some((text) => label.includes(text));
    const sizes = benchCase.sizes.filter((s) => Boolean(s.quick) === options.quick && isWanted(s));
    for (const size of sizes) {
      console.error(`${benchCase.name} ${size.label}`);
      const row = await runSize(benchCase, size, context, limits);
      if (!row) continue;
      rows.push(row);
      console.error(table([row]).split('\n')[1]);
      if (options.json) save(options.json, rows, { ...about, other_cores: context.otherCores });
    }
  }
  console.log(table(rows));
}

/** After every row, so that a run that is stopped leaves what it has. */
function save(file, rows, about) {
  const stem = file.replace(/\.jsonl?$/, '');
  writeFileSync(file, rows.map((row) => `${JSON.stringify(row)}\n`).join(''));
  writeFileSync(`${stem}.machine.json`, `${JSON.stringify(about, null, 2)}\n`);
  writeFileSync(`${stem}.svg`, chart(rows, about));
  if (rows.some((row) => row.recall)) writeFileSync(`${stem}.recall.svg`, recallChart(rows, about));
}

await main();
