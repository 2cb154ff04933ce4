// What goes wrong on a GPU: memory that runs out at any allocation, kernels that crash. The emulated device fails as told.
import { openSync, readSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { add, device, full, matmul, memory, scope, TopknotError, tensor } from '../../lib/index.js';
import { type Arguments, type Case, cases, nameOf, placed, resultsOf, valuesOf } from './cases.js';

// The counters of native/test/simt/faults.h. The plugin maps the file when it is first used.
const path = join(tmpdir(), `topknot-faults-${process.pid}`);
const file = openSync(path, 'w+');
writeSync(file, Buffer.alloc(32));
process.env.TOPKNOT_SIMT_FAULTS = path;
const places = { allocation: 0, grid: 8, recover: 16, live: 24 };
type Counter = keyof typeof places;
const set = (counter: Counter, n: number) => writeSync(file, BigInt64Array.of(BigInt(n)), 0, 8, places[counter]);
function get(counter: Counter): number {
  const number = new BigInt64Array(1);
  readSync(file, number, 0, 8, places[counter]);
  return Number(number[0]);
}

afterEach(() => {
  set('allocation', 0);
  set('grid', 0);
  set('recover', 1);
  device('cuda'); // the next call recovers
});

/** The values of a call's results; whatever happens, its tensors are gone afterwards. */
async function run(one: Case, args: Arguments): Promise<number[][]> {
  const results = scope(() => resultsOf(one, args));
  try {
    return await valuesOf(results);
  } finally {
    for (const t of results) t.dispose();
  }
}

/** Waits for what is still queued behind a call that threw. */
const drained = () => tensor([1]).cast('int8').data();

async function outcomeOf(one: Case, args: Arguments): Promise<number[][] | TopknotError> {
  try {
    return await run(one, args);
  } catch (error) {
    return error as TopknotError;
  } finally {
    await drained();
  }
}
const code = (outcome: unknown) => (outcome instanceof TopknotError ? outcome.code : 'none');

/** Runs the body for every operation that the GPU has, with its arguments there. They are gone afterwards. */
function everyOperation(body: (one: Case, args: Arguments, live: number) => Promise<void>) {
  it.each(cases.map((one): [string, Case] => [nameOf(one), one]))('%s', async (_, one) => {
    const onCpu = one.args();
    const args = placed(one, onCpu, 'cuda');
    try {
      for (const t of Object.values(args)) await t.data();
      const live = get('live');
      expect(code(await outcomeOf(one, args))).toBe('none');
      expect(get('live')).toBe(live);
      await body(one, args, live);
    } finally {
      for (const t of [...Object.values(onCpu), ...Object.values(args)]) t.dispose();
    }
  });
}

describe('out of memory', () => {
  everyOperation(async (one, args, live) => {
    const expected = await run(one, args);
    for (let n = 1; ; n++) {
      set('allocation', n);
      const outcome = await outcomeOf(one, args);
      const came = get('allocation') === 0;
      set('allocation', 0);
      expect(get('live')).toBe(live);
      if (!came) {
        expect(n).toBeGreaterThan(1);
        expect(outcome).toEqual(expected);
        return;
      }
      expect(code(outcome)).toBe('ERR_MEMORY');
      expect((outcome as Error).message).toMatch(/device 'cuda:0': could not allocate \d+ bytes: \d+ of \d+ are free/);
    }
  });

  it('of a tensor that is moved', async () => {
    const live = get('live');
    set('allocation', 1);
    expect(() => tensor([1], { device: 'cuda' })).toThrow(/could not allocate 4 bytes/);
    expect(get('live')).toBe(live);
    scope(() => expect(tensor([1], { device: 'cuda' }).dataSync()[0]).toBe(1));
  });
});

/** They need no kernel. */
const copiesOnly = ['embeddingTableCopy', 'sliceRows', 'joinRows'];

describe('a kernel that crashes', () => {
  everyOperation(async (one, args, live) => {
    set('grid', 1);
    const outcome = await outcomeOf(one, args);
    if (copiesOnly.includes(one.operation)) return expect(code(outcome)).toBe('none');
    expect(code(outcome)).toBe('ERR_DEVICE_LOST');
    expect((outcome as Error).message).toContain('a planted fault');
    expect(code(await outcomeOf(one, args))).toBe('ERR_DEVICE_LOST');
    expect(get('live')).toBe(live);
    set('recover', 1);
    expect(code(await outcomeOf(one, args))).toBe('none');
  });

  it('loses pending and later work there, and nothing else', async () => {
    const other = tensor([1, 2], { device: 'cuda:1' });
    const x = tensor(
      [
        [1, 2],
        [3, 4],
      ],
      { device: 'cuda' },
    );
    await x.data();
    set('grid', 1);
    matmul(full([900, 900]), full([900, 900])); // what comes behind it is still queued when it is asked for
    const pending = scope(() => matmul(matmul(x, x), x));
    await expect(pending.data()).rejects.toMatchObject({ code: 'ERR_DEVICE_LOST' });
    const lost = { code: 'ERR_DEVICE_LOST', message: expect.stringMatching(/'cuda:0' was lost.*a planted fault/) };
    await expect(x.data()).rejects.toMatchObject(lost);
    expect(() => x.dataSync()).toThrow(expect.objectContaining(lost));
    expect(() => tensor([1]).to('cuda')).toThrow(expect.objectContaining(lost));
    expect(() => add(x, x)).toThrow(expect.objectContaining(lost));
    expect([device('auto'), device('cuda')]).toEqual(['cuda:1', 'cuda:0']); // the choice passes over it
    expect((await add(tensor([1]), tensor([2])).data())[0]).toBe(3);
    expect((await other.data()).join()).toBe('1,2');
    expect(memory().cuda.map((m) => m.device)).toContain('cuda:0');
    x.dispose();
    set('recover', 1);
    expect((await tensor([5], { device: 'cuda' }).data())[0]).toBe(5);
    expect(device('auto')).toBe('cuda:0');
  });
});
