// Fits on the emulated GPU, against the CPU. The kernels' own tests are native/test/cuda_*_test.cpp.
import { mkdtempSync, openSync, readSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import * as topknot from '../../lib/index.js';
import { CsrMatrix, type Interactions, memory } from '../../lib/index.js';
import { interactionsOf, triplets } from '../models/suite.js';
import { settledMemory } from '../reference/memory.js';

// The counters of native/test/simt/faults.h. The plugin maps the file when it is first used.
const faults = join(mkdtempSync(join(tmpdir(), 'topknot-')), 'faults');
const file = openSync(faults, 'w+');
writeSync(file, Buffer.alloc(32));
process.env.TOPKNOT_SIMT_FAULTS = faults;
const grid = 8;
const set = (place: number, n: number) => writeSync(file, BigInt64Array.of(BigInt(n)), 0, 8, place);
function get(place: number): number {
  const number = new BigInt64Array(1);
  readSync(file, number, 0, 8, place);
  return Number(number[0]);
}
afterEach(() => {
  set(grid, 0);
});

type Options = Record<string, unknown>;
interface Fitting {
  fit(data: Interactions, options?: Options): Promise<unknown>;
  topKRows(users: Int32Array, k: number): Promise<{ scores: Float32Array }>;
  readonly loss?: readonly number[];
  dispose(): void;
}

const data = await interactionsOf(triplets(23, 17));
const make = (model: string, options: Options): Fitting =>
  // biome-ignore lint/suspicious/noExplicitAny: the model's own constructor checks its options
  new (topknot as any)[model](options);
const ranked = async (model: Fitting) => {
  const users = Int32Array.from({ length: 23 }, (_, u) => u);
  return [...(await model.topKRows(users, 5)).scores];
};

/** A model, its options, and how far scores may lie from the CPU's, as a share of the largest. */
const fits: [string, Options, number][] = [
  ['BPR', { factors: 5, iterations: 4, learningRate: 0.1, computeLoss: true }, 1e-4],
  ['BPR', { factors: 20, iterations: 2, negativeSampling: 'hard', biases: true }, 1e-4],
  ['BPR', { factors: 20, iterations: 2, negativeSampling: 'popularity' }, 1e-4],
  ['PureSVD', { factors: 3 }, 1e-4],
  ['NMF', { factors: 4, iterations: 3, computeLoss: true }, 1e-3],
  ['NMF', { factors: 4, iterations: 3, objective: 'kl', computeLoss: true }, 1e-3],
  ['NMF', { factors: 4, iterations: 2, over: 'observed' }, 1e-3],
  ['LogisticMF', { factors: 6, iterations: 3 }, 1e-3],
  ['BiasedMF', { factors: 6, iterations: 3, computeLoss: true }, 1e-4],
  ['BiasedMF', { factors: 6, solver: 'als', iterations: 3, computeLoss: true }, 1e-4],
  ['BiasedMF', { factors: 0, solver: 'als', iterations: 2 }, 1e-4],
  ['SVDpp', { factors: 6, iterations: 3, computeLoss: true }, 1e-4],
];
/** The same for models that have no warm start. */
const closedForms: [string, Options, number][] = [
  ['ItemKNN', { neighbours: 4 }, 1e-5],
  ['ItemKNN', { neighbours: 4, similarity: 'bm25', asymmetry: 0.7, normalize: true }, 1e-5],
  ['UserKNN', { neighbours: 5, similarity: 'tfidf', shrinkage: 2 }, 1e-5],
  ['EASE', { regularization: 2 }, 1e-4],
  ['EASE', { regularization: 2, neighbours: 3 }, 1e-4],
];

/** Those that send blocks of the interactions where all of them would take too much of the GPU's memory. */
const streaming = ['PureSVD', 'NMF', 'LogisticMF'];

describe.each([...fits, ...closedForms])('%s %j', (name, options, tolerance) => {
  it('learns on a GPU what it learns on the CPU', async () => {
    const cpu = make(name, options);
    const gpu = make(name, { ...options, device: 'cuda:1' });
    await cpu.fit(data);
    const before = (await settledMemory()).cudaBuffers;
    await gpu.fit(data);
    const exact = await ranked(cpu);
    const size = Math.max(...exact.map(Math.abs));
    expect(size).toBeGreaterThan(0);
    for (const [i, score] of (await ranked(gpu)).entries())
      expect(Math.abs(score - exact[i]!)).toBeLessThanOrEqual(tolerance * size);
    if (options.computeLoss) expect(gpu.loss!.length).toBe(cpu.loss!.length);
    for (const [i, loss] of (gpu.loss ?? []).entries()) expect(loss / cpu.loss![i]! - 1).toBeCloseTo(0, 4);
    expect(memory().cudaBuffers).toBeGreaterThan(before);
    gpu.dispose();
    expect(memory().cudaBuffers).toBe(before);
  });
});

describe.each(fits)('%s %j', (name, options) => {
  it.runIf(streaming.includes(name))('streams through a memory that is too small', async () => {
    const whole = make(name, { ...options, device: 'cuda' });
    await whole.fit(data);
    const before = (await settledMemory()).cudaBuffers;
    for (const deviceBytes of [1, 20_000]) {
      const streamed = make(name, { ...options, device: 'cuda', deviceBytes });
      set(grid, 1e6);
      await streamed.fit(data);
      const launches = 1e6 - get(grid);
      if (deviceBytes === 1) expect(launches).toBeGreaterThan(2 * (23 + 17)); // a block for every row
      expect(await ranked(streamed)).toEqual(await ranked(whole));
      expect(streamed.loss).toEqual(whole.loss);
      streamed.dispose();
      expect(memory().cudaBuffers).toBe(before);
    }
    expect(() => make(name, { ...options, deviceBytes: -1 })).toThrow(expect.objectContaining({ code: 'ERR_RANGE' }));
  });

  it('goes on from the last fit', async () => {
    const model = make(name, { ...options, device: 'cuda' });
    await model.fit(data);
    await model.fit(data, { warmStart: true });
    for (const score of await ranked(model)) expect(score).not.toBeNaN();
  });
});

describe('option device', () => {
  it('truncatedSvd finds the same values', async () => {
    const indptr = [0, 2, 4, 6];
    const matrix = await CsrMatrix.from({ indptr, indices: [0, 2, 1, 3, 0, 3], values: [2, 1, 3, 1, 1, 5], cols: 4 });
    const [cpu, gpu] = await Promise.all(
      ['cpu', 'cuda'].map(async (device) => (await topknot.truncatedSvd(matrix, 2, { device })).s.data()),
    );
    for (const [i, s] of gpu!.entries()) expect(s / cpu![i]! - 1).toBeCloseTo(0, 5);
  });

  it.each(['Popularity', 'Random'])('%s fits on the CPU alone and says so', (name) => {
    expect(() => make(name, { device: 'cuda' })).toThrow(
      expect.objectContaining({
        code: 'ERR_DEVICE',
        message:
          "options.device: expected 'cpu' but received 'cuda': this has no GPU side, or chose its device where it was made",
      }),
    );
    make(name, { device: 'cpu' });
  });

  it('refuses devices that are not there', async () => {
    const fitted = (device: unknown) => make('BPR', { iterations: 1, device }).fit(data);
    await expect(fitted('cuda:7')).rejects.toMatchObject({ code: 'ERR_DEVICE' });
    for (const device of ['gpu', 3])
      expect(() => make('BPR', { device })).toThrow(expect.objectContaining({ code: 'ERR_ARGUMENT' }));
  });
});
