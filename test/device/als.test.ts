// ALS on the emulated GPU against the CPU: the same model code, other kernels.
import { openSync, readSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { ALS, type ALSOptions, device, type FitOptions, Interactions, TopknotError, tensor } from '../../lib/index.js';
import { numbers } from '../models/suite.js';
import { settledMemory } from '../reference/memory.js';

// The counters of native/test/simt/faults.h. The plugin maps the file when it is first used.
const path = join(tmpdir(), `topknot-als-faults-${process.pid}`);
const file = openSync(path, 'w+');
writeSync(file, Buffer.alloc(32));
process.env.TOPKNOT_SIMT_FAULTS = path;
const set = (place: number, n: number) => writeSync(file, BigInt64Array.of(BigInt(n)), 0, 8, place);
function get(place: number): number {
  const number = new BigInt64Array(1);
  readSync(file, number, 0, 8, place);
  return Number(number[0]);
}
const live = () => get(24);
afterEach(() => {
  set(0, 0);
  set(8, 0);
  set(16, 1);
  device('cuda'); // the next call recovers
});

/** 30 users, of whom the first has all of the 21 items. */
const next = numbers(3);
const cells = Array.from({ length: 30 * 21 }, (_, i) => ({ user: Math.floor(i / 21), item: i % 21 }));
const data = await Interactions.from(
  cells.filter(({ user }) => user === 0 || next() < 0.2).map((cell) => ({ ...cell, value: 1 + next() })),
  { user: 'user', item: 'item', value: 'value' },
);

const small: ALSOptions = { factors: 6, iterations: 2, regularization: 0.1, unobservedWeight: 0.2, computeLoss: true };
const solvers: [string, ALSOptions][] = [
  ['cholesky', { solver: 'cholesky' }],
  ['cg', { solver: 'cg' }],
  ['subspace', { solver: 'subspace', blockSize: 4 }],
  ['cholesky, hkv', { solver: 'cholesky', objective: 'hkv' }],
];

const fitted = (options: ALSOptions, how: FitOptions = {}) => new ALS({ ...small, ...options }).fit(data, how);

async function factorsOf(model: ALS): Promise<number[]> {
  return [...(await model.userFactors.data()), ...(await model.itemFactors.data())];
}

/** Within the tolerance of docs/gpu.md: 1e-4 of the largest. */
async function expectClose(model: ALS, cpu: ALS) {
  const [found, expected] = [await factorsOf(model), await factorsOf(cpu)];
  const largest = Math.max(...expected.map(Math.abs));
  expect(largest).toBeGreaterThan(0.01);
  for (const [i, x] of expected.entries()) expect(Math.abs(found[i]! - x)).toBeLessThan(1e-4 * largest);
  for (const [i, loss] of cpu.loss.entries()) expect(model.loss[i]! / loss).toBeCloseTo(1, 4);
}

describe.each(solvers)('ALS with solver %s on a GPU', (_, options) => {
  it('learns what it learns on the CPU', async () => {
    const gpu = await fitted({ ...options, device: 'cuda' });
    expect(gpu.userFactors.device).toBe('cpu');
    expect(gpu.loss.length).toBe(2);
    await expectClose(gpu, await fitted(options));
  });

  it('streams through a memory that is too small', async () => {
    const whole = await fitted({ ...options, device: 'cuda', computeLoss: false });
    set(8, 1e6);
    const streamed = await fitted({ ...options, device: 'cuda', computeLoss: false, deviceBytes: 1 });
    expect(1e6 - get(8)).toBeGreaterThan(2 * 2 * (30 + 21)); // launches: of two sweeps, with a block for every row
    expect(await factorsOf(streamed)).toEqual(await factorsOf(whole));
    await expectClose(await fitted({ ...options, device: 'cuda', deviceBytes: 4000 }), await fitted(options));
  });
});

describe('a fit on a GPU', () => {
  it('goes on from the last one', async () => {
    const [gpu, cpu] = [new ALS({ ...small, device: 'cuda:1' }), new ALS(small)];
    for (const model of [gpu, cpu]) {
      await model.fit(data);
      await model.fit(data, { warmStart: true });
    }
    await expectClose(gpu as ALS, cpu as ALS);
  });

  it('tells of its progress and stops when it is aborted, with the model as it was', async () => {
    const model = await fitted({ device: 'cuda' });
    const before = await factorsOf(model);
    const used = async () => (await settledMemory()).cuda.map(({ usedBytes }) => usedBytes);
    const usedBefore = await used();
    const controller = new AbortController();
    const seen: number[] = [];
    const stopped = model.fit(data, {
      signal: controller.signal,
      onProgress: ({ done, total }) => {
        seen.push(done);
        expect(total).toBe(2);
        if (done > 0) controller.abort(new Error('enough'));
      },
    });
    await expect(stopped).rejects.toThrow('enough');
    expect(seen.length).toBeGreaterThan(0);
    expect(await factorsOf(model)).toEqual(before);
    expect(await used()).toEqual(usedBefore);
    model.dispose();
    expect((await used()).every((bytes) => bytes === 0)).toBe(true);
  });

  it('leaves a model that folds in on the CPU', async () => {
    const model = await fitted({ device: 'cuda' });
    const history = cells.filter(({ user }) => user === 0).map(({ item }) => item);
    expect(model.userFactors.device).toBe('cpu');
    expect((await model.foldIn(history)).length).toBe(6);
  });

  it.each([
    ['cuda:7', 'ERR_DEVICE', 'cuda:7'],
    ['gpu', 'ERR_ARGUMENT', "'gpu'"],
  ])('refuses device %s', async (name, code, word) => {
    const error = await (async () => fitted({ device: name }))().catch((e: unknown) => e); // by the constructor or the fit
    expect(error).toMatchObject({ name: 'TopknotError', code });
    expect((error as Error).message).toContain(word);
  });

  it('refuses what is no name and no number', () => {
    expect(() => new ALS({ device: 1 as never })).toThrow(TopknotError);
    expect(() => new ALS({ deviceBytes: -1 })).toThrow(TopknotError);
  });

  it('refuses systems without a solution as the CPU does', async () => {
    const without = { regularization: 0, unobservedWeight: 0 };
    for (const where of ['cpu', 'cuda'])
      await expect(fitted({ ...without, device: where })).rejects.toMatchObject({ code: 'ERR_VALUE' });
  });

  it('gives everything back when an allocation fails, wherever that is', async () => {
    const options = { ...small, iterations: 1, device: 'cuda', solver: 'subspace', blockSize: 4 } as const;
    const before = live();
    let failures = 0;
    for (let n = 1; ; n += 7) {
      set(0, n);
      const outcome = await new ALS(options).fit(data).catch((e: unknown) => e);
      if (outcome instanceof ALS) outcome.dispose();
      await tensor([1]).cast('int8').data(); // copies that are still queued hold their memory
      expect(live()).toBe(before);
      if (outcome instanceof ALS) break;
      expect(outcome).toMatchObject({ name: 'TopknotError', code: 'ERR_MEMORY' });
      ++failures;
    }
    expect(failures).toBeGreaterThan(3);
    set(0, 0);
    await expectClose(
      (await new ALS(options).fit(data)) as ALS,
      (await new ALS({ ...options, device: 'cpu' }).fit(data)) as ALS,
    );
  });

  it('is lost with the device, and the CPU goes on', async () => {
    set(8, 5);
    await expect(fitted({ device: 'cuda' })).rejects.toMatchObject({ code: 'ERR_DEVICE_LOST' });
    await expect(fitted({ device: 'cuda' })).rejects.toMatchObject({ code: 'ERR_DEVICE_LOST' });
    await expect(fitted({})).resolves.toBeInstanceOf(ALS);
  });
});
