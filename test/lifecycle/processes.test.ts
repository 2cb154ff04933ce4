// What happens around jobs in flight: workers that end, processes that exit, memory that must come back. Every case runs
// in a process of its own, on the built package, so that a crash is seen as one.
import { spawn } from 'node:child_process';
import { describe, expect, it } from 'vitest';

const prelude = `
  import { Worker, isMainThread, parentPort, workerData } from 'node:worker_threads';
  import { CsrMatrix, full, memory, tensor } from '${new URL('../../dist/index.js', import.meta.url)}';
  const n = 4_000_000;
  const long = () => CsrMatrix.fromCoo(new Int32Array(n).map((_, i) => (i * 7919) % 5000), new Int32Array(n).map((_, i) => i % 4999),
    undefined, { shape: [5000, 5000] });
`;

/** Runs a module; resolves with its exit code, signal and output. */
function run(source: string, flags: string[] = []) {
  return new Promise<{ code: number | null; signal: string | null; out: string }>((resolve) => {
    const child = spawn(process.execPath, [...flags, '--input-type=module', '-e', prelude + source], {
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let out = '';
    child.stdout.on('data', (d) => (out += d));
    child.stderr.on('data', (d) => (out += d));
    child.on('exit', (code, signal) => resolve({ code, signal, out }));
  });
}
/** A worker's code as a data: URL, with the same prelude. */
const worker = (source: string) =>
  `new Worker(new URL('data:text/javascript,' + encodeURIComponent(${JSON.stringify(prelude)} + ${JSON.stringify(source)})))`;
const ended = (...lines: string[]) => ({ code: 0, signal: null, out: lines.map((l) => `${l}\n`).join('') });

describe('process exit', () => {
  it('waits for a job that is running', async () => {
    expect(await run(`long().then((m) => console.log('done', m.nnz > 0));`)).toEqual(ended('done true'));
  });
  it('process.exit with jobs in flight ends cleanly', async () => {
    const { code, signal } = await run(`for (let i = 0; i < 8; i++) long(); setTimeout(() => process.exit(7), 5);`);
    expect([code, signal]).toEqual([7, null]);
  });
  it('an uncaught exception with jobs in flight is that exception', async () => {
    const { code, out } = await run(`long(); throw new Error('mine');`);
    expect(code).toBe(1);
    expect(out).toContain('mine');
  });
});

describe('setThreads', () => {
  it('in the middle of jobs changes nothing but speed', async () => {
    expect(
      await run(`
        import { ALS, FlatIndex, setThreads } from '${new URL('../../dist/index.js', import.meta.url)}';
        const cells = 100_000;
        const matrix = () => CsrMatrix.fromCoo(new Int32Array(cells).map((_, i) => (i * 7919) % 5000),
          new Int32Array(cells).map((_, i) => (i * 104729) % 3000), undefined, { shape: [5000, 3000] });
        const data = await matrix();
        let running = true;
        const flips = (async () => {
          for (let n = 0; running; n++) {
            for (let i = 0; i < 200; i++) setThreads((n + i) % 2 ? 1 : 64);
            await new Promise(setImmediate);
          }
        })();
        const until = Date.now() + 2500;
        const repeat = async (job) => { while (Date.now() < until) await job(); };
        await Promise.all([
          repeat(async () => (await matrix()).dispose()),
          repeat(() => new ALS({ factors: 8, iterations: 20, solver: 'cg' }).fit(data)),
          repeat(() => new ALS({ factors: 8, iterations: 20 }).fit(data)),
        ]);
        running = false;
        await flips;
        console.log('done');`),
    ).toEqual(ended('done'));
  });
});

describe('worker threads', () => {
  it('several at once, with the main thread, each with its own results', async () => {
    const body = `parentPort.postMessage((await long()).nnz);`;
    expect(
      await run(`
        const from = (w) => new Promise((ok, no) => { w.on('message', ok); w.on('error', no); });
        const all = await Promise.all([...Array(4)].map(() => from(${worker(body)})));
        const own = (await long()).nnz;
        console.log(all.every((x) => x === own));`),
    ).toEqual(ended('true'));
  });
  it('terminated in mid-job, many times over, and the main thread goes on', async () => {
    const body = `parentPort.postMessage('go'); for (;;) await Promise.all([long(), full([1000], { value: 1 }).cast('int8').data()]);`;
    expect(
      await run(`
        for (let i = 0; i < 6; i++) {
          const w = ${worker(body)};
          await new Promise((ok) => w.once('message', ok));
          await new Promise((ok) => setTimeout(ok, 15 * i));
          await w.terminate();
        }
        console.log((await tensor([1, 2]).cast('int32').data()).join());`),
    ).toEqual(ended('1,2'));
  });
  it('the addon loaded only in a worker survives the end of that worker', async () => {
    // A process of its own, whose main thread never loads the addon.
    const source = `
      import { Worker } from 'node:worker_threads';
      for (let i = 0; i < 3; i++) {
        const w = new Worker(new URL('data:text/javascript,' + encodeURIComponent(${JSON.stringify(`${prelude} await long();`)})));
        await new Promise((ok, no) => { w.on('exit', ok); w.on('error', no); });
      }
      setTimeout(() => console.log('alive'), 50);`;
    const child = spawn(process.execPath, ['--input-type=module', '-e', source], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    let out = '';
    child.stdout.on('data', (d) => (out += d));
    const end = await new Promise((resolve) => child.on('exit', (code, signal) => resolve([code, signal])));
    expect([end, out]).toEqual([[0, null], 'alive\n']);
  });
});

describe('memory', () => {
  it('handles nobody keeps are collected without being disposed', async () => {
    // 400 tensors of 8 MB: 3.2 GB if V8 did not know of them.
    const { code, out } = await run(`
      for (let i = 0; i < 400; i++) { full([2_000_000], { value: 1 }); if (i % 8 === 0) await new Promise(setImmediate); }
      console.log(process.resourceUsage().maxRSS < 1_000_000 ? 'fine' : process.resourceUsage().maxRSS);`);
    expect([code, out]).toEqual([0, 'fine\n']);
  });
  it('everything comes back after work, failures and aborts', async () => {
    const { code, out } = await run(
      `
      const before = memory();
      const round = async () => {
        (await long()).dispose();
        await CsrMatrix.fromCoo(Int32Array.of(9), Int32Array.of(0), undefined, { shape: [1, 1] }).catch(() => {});
        await tensor([1e9]).cast('int8').data().catch(() => {});
        const stop = new AbortController();
        const job = CsrMatrix.fromCoo(new Int32Array(n), new Int32Array(n), undefined, { shape: [1, 1], signal: stop.signal });
        stop.abort();
        await job.catch(() => {});
      };
      for (let i = 0; i < 3; i++) await round();
      for (let i = 0; i < 20; i++) { globalThis.gc(); await new Promise((ok) => setTimeout(ok, 20)); }
      console.log(memory().hostBytes - before.hostBytes, memory().hostBuffers - before.hostBuffers);`,
      ['--expose-gc'],
    );
    expect([code, out]).toEqual([0, '0 0\n']);
  });
});

describe('listeners', () => {
  it('are let go once their job is over, or was never started', async () => {
    const { code, out } = await run(
      `
      let alive = 0;
      const registry = new FinalizationRegistry(() => alive--);
      const options = (shape) => { const onProgress = () => {}; alive++; registry.register(onProgress); return { shape, onProgress }; };
      const one = Int32Array.of(0);
      const disposed = tensor(one); disposed.dispose();
      for (let i = 0; i < 20; i++) {
        await CsrMatrix.fromCoo(one, one, undefined, options([1, 1]));
        await CsrMatrix.fromCoo('no', one, undefined, options([1, 1])).catch(() => {});
        await CsrMatrix.fromCoo(disposed, one, undefined, options([1, 1])).catch(() => {});
      }
      for (let i = 0; i < 20; i++) { globalThis.gc(); await new Promise((ok) => setTimeout(ok, 20)); }
      console.log(alive);`,
      ['--expose-gc'],
    );
    expect([code, Number(out) <= 2]).toEqual([0, true]); // the last call's frame may linger
  });
});

describe('event loop', () => {
  it('turns while a job runs', async () => {
    const { out } = await run(`
      const rows = new Int32Array(n).map((_, i) => (i * 7919) % 5000), cols = new Int32Array(n).map((_, i) => i % 4999);
      let turns = 0, running = true;
      const job = CsrMatrix.fromCoo(rows, cols, undefined, { shape: [5000, 5000] }).then(() => (running = false));
      while (running) { turns++; await new Promise(setImmediate); }
      console.log(turns > 100 ? 'turns' : turns);`);
    expect(out).toBe('turns\n');
  });
});
