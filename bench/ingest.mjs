// Ingestion: 20 million interactions with string ids, from Parquet to a CSR matrix, against DuckDB's own scan and
// distinct count of the same columns with as many threads. Prints one JSON line; `ratio` is the target (at most 3).
//   node bench/ingest.mjs [--rows 20000000] [--file FILE.parquet] [--repeats 3]
import { existsSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { parseArgs } from 'node:util';
import { DuckDBInstance } from '@duckdb/node-api';
import { Interactions, setThreads, threads } from '../dist/index.js';

const { values: flags } = parseArgs({
  options: {
    rows: { type: 'string', default: '20000000' },
    file: { type: 'string' },
    repeats: { type: 'string', default: '3' },
    threads: { type: 'string', default: '4' },
  },
});
const rows = Number(flags.rows);
const file = flags.file ?? join(tmpdir(), `topknot-ingest-${rows}.parquet`);
const quoted = `'${file.replaceAll("'", "''")}'`;
setThreads(Number(flags.threads));

async function generate() {
  const instance = await DuckDBInstance.create(':memory:', { threads: '1' });
  const connection = await instance.connect();
  await connection.run('SELECT setseed(0.5)');
  // Zipf-like: squares and cubes of uniform numbers crowd at the low ids.
  await connection.run(`COPY (
    SELECT format('user-{:06d}', (500000 * pow(random(), 2))::INT) AS userId,
           format('item-{:06d}', (100000 * pow(random(), 3))::INT) AS itemId,
           (1 + floor(random() * 5))::FLOAT AS rating
    FROM range(${rows})) TO ${quoted} (FORMAT parquet)`);
  connection.closeSync();
}

async function scan() {
  const instance = await DuckDBInstance.create(':memory:', { threads: String(threads()) });
  const connection = await instance.connect();
  const start = performance.now();
  await connection.runAndReadAll(`SELECT count(DISTINCT userId), count(DISTINCT itemId) FROM read_parquet(${quoted})`);
  const ms = performance.now() - start;
  connection.closeSync();
  return ms;
}

async function ingest() {
  const start = performance.now();
  const data = await Interactions.read(file, { user: 'userId', item: 'itemId', value: 'rating' });
  const matrix = await data.matrix();
  const ms = performance.now() - start;
  const size = { users: data.users.size, items: data.items.size, interactions: data.size, nnz: matrix.nnz };
  data.dispose();
  return { ms, size };
}

const median = (x) => x.toSorted((a, b) => a - b)[x.length >> 1];

if (!existsSync(file)) await generate();
const scans = [];
const ingests = [];
let size;
const delays = [];
for (let i = 0; i < Number(flags.repeats); i++) {
  scans.push(await scan());
  const delay = monitorEventLoopDelay({ resolution: 1 });
  delay.enable();
  const run = await ingest();
  delay.disable();
  delays.push({ p99: delay.percentile(99) / 1e6 - 1, max: delay.max / 1e6 - 1 });
  ingests.push(run.ms);
  size = run.size;
}
const rounded = (x) => Math.round(x);
console.log(
  JSON.stringify({
    case: 'ingest',
    rows,
    threads: threads(),
    ...size,
    scan_ms: scans.map(rounded),
    ingest_ms: ingests.map(rounded),
    median_ms: rounded(median(ingests)),
    peers: { 'duckdb scan and distinct count': rounded(median(scans)) },
    ratio: Number((median(ingests) / median(scans)).toFixed(2)),
    best_ratio: Number((Math.min(...ingests) / Math.min(...scans)).toFixed(2)),
    loop_delay_p99_ms: Number(median(delays.map((d) => d.p99)).toFixed(2)),
    loop_delay_max_ms: Number(median(delays.map((d) => d.max)).toFixed(2)),
  }),
);
