import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  embeddingBagBackward,
  embeddingBagSync,
  gatherBackward,
  gatherSync,
  type QuantizedRows,
  quantizeRows,
  setThreads,
  tensor,
  threads,
} from '../../lib/index.js';
import { numbers } from '../models/suite.js';
import { type Bags, denseGradient } from '../reference/embedding.js';

const next = numbers(11);
const matrix = (rows: number, cols: number) =>
  Array.from({ length: rows }, () => Array.from({ length: cols }, () => Math.fround(next() - 0.5)));
const sums = (a: number[][], b: number[][]) =>
  a.reduce((s, row, r) => s + row.reduce((t, x, c) => t + x * b[r]![c]!, 0), 0);

const cases = fc.record({
  rows: fc.integer({ min: 1, max: 12 }),
  cols: fc.integer({ min: 1, max: 70 }),
  sizes: fc.array(fc.integer({ min: 0, max: 7 }), { minLength: 1, maxLength: 9 }),
  mode: fc.constantFrom('sum' as const, 'mean' as const, 'max' as const),
  padded: fc.boolean(),
  weighted: fc.boolean(),
});

describe('embeddingBagBackward', () => {
  it('gives the rows of the dense gradient that were looked up, and only those', async () => {
    await fc.assert(
      fc.asyncProperty(cases, async ({ rows, cols, sizes, mode, padded, weighted }) => {
        const offsets = [0, ...sizes.map((_, b) => sizes.slice(0, b + 1).reduce((a, x) => a + x, 0))];
        const ids = Array.from({ length: offsets.at(-1)! }, () => Math.floor(next() * rows));
        const weights = weighted && mode === 'sum' ? ids.map(() => Math.fround(next())) : undefined;
        const bags: Bags = { ids, offsets, mode, weights, paddingIndex: padded ? 0 : undefined };
        const [table, dOut] = [matrix(rows, cols), matrix(sizes.length, cols)];
        const found = await embeddingBagBackward(
          tensor(dOut),
          tensor(table),
          Int32Array.from(ids),
          Int32Array.from(offsets),
          { mode, weights: weights && Float32Array.from(weights), paddingIndex: bags.paddingIndex },
        );
        const used = [...new Set(ids.filter((id) => id !== bags.paddingIndex))].sort((a, b) => a - b);
        expect([...found.rows.dataSync()]).toEqual(used);
        const exact = denseGradient(table, bags, dOut);
        const values = found.values.dataSync();
        used.forEach((row, g) => {
          for (let c = 0; c < cols; ++c) expect(values[g * cols + c]).toBeCloseTo(exact[row]![c]!, 5);
        });
      }),
      { numRuns: 150 },
    );
  });

  it.each(['sum', 'mean', 'max'] as const)('agrees with central differences of embeddingBag: %s', async (mode) => {
    const [rows, cols] = [5, 6];
    // All entries of the table differ by more than 2h: where two rows tie within it, a maximum has no slope.
    const table = Array.from({ length: rows }, (_, i) =>
      Array.from({ length: cols }, (_, j) => (((i * cols + j) * 7) % (rows * cols)) / 15 - 1),
    );
    const dOut = matrix(3, cols);
    const [ids, offsets] = [Int32Array.of(4, 1, 4, 0, 2, 1), Int32Array.of(0, 3, 3, 6)];
    const weights = mode === 'sum' ? Float32Array.of(0.5, -1, 2, 1, 0.25, 3) : undefined;
    const loss = (at: number[][], w = weights) => {
      const flat = [...embeddingBagSync(tensor(at), ids, offsets, { mode, weights: w }).dataSync()];
      return sums(
        dOut,
        dOut.map((_, b) => flat.slice(b * cols, (b + 1) * cols)),
      );
    };
    const {
      rows: used,
      values,
      ...rest
    } = await embeddingBagBackward(tensor(dOut), tensor(table), ids, offsets, {
      mode,
      weights,
      weightGradient: mode === 'sum',
    });
    const h = 2 ** -8;
    const moved = (r: number, c: number, by: number) =>
      table.map((row, i) => row.map((x, j) => (i === r && j === c ? x + by : x)));
    const gradient = values.dataSync();
    [...used.dataSync()].forEach((row, g) => {
      for (let c = 0; c < cols; ++c) {
        const slope = (loss(moved(row, c, h)) - loss(moved(row, c, -h))) / (2 * h);
        expect(gradient[g * cols + c]).toBeCloseTo(slope, 3);
      }
    });
    if (!weights) return expect(rest.weights).toBeUndefined();
    const ofWeights = rest.weights!.dataSync();
    weights.forEach((_, i) => {
      const at = (by: number) =>
        loss(
          table,
          weights.map((w, j) => (i === j ? w + by : w)),
        );
      expect(ofWeights[i]).toBeCloseTo((at(h) - at(-h)) / (2 * h), 3);
    });
  });

  it.skipIf(process.env.TOPKNOT_TEST_DEVICE)(
    'gives the same bytes at any thread count, for rows used once and thousands of times',
    async () => {
      const [rows, cols, bags, size] = [5000, 33, 4000, 12];
      const ids = Int32Array.from({ length: bags * size }, (_, i) => (i % 3 === 0 ? 7 : (i * 7919) % rows));
      const shaped = tensor<'int32'>(ids, { shape: [bags, size] });
      const dOut = tensor(
        Float32Array.from({ length: bags * cols }, (_, i) => Math.sin(i)),
        { shape: [bags, cols] },
      );
      const table = tensor(new Float32Array(rows * cols), { shape: [rows, cols] });
      const before = threads();
      const results: Buffer[] = [];
      for (const count of [1, 3, 8]) {
        setThreads(count);
        const { values } = await embeddingBagBackward(dOut, table, shaped, undefined, { mode: 'mean' });
        results.push(Buffer.from(values.dataSync().buffer));
      }
      setThreads(before);
      expect(results.map((bytes) => bytes.equals(results[0]!))).toEqual([true, true, true]);
    },
  );

  it('refuses what does not fit', async () => {
    const [table, ids] = [tensor([[1, 2]]), tensor([[0, 0]]).cast('int32')];
    const rejects = (promise: Promise<unknown>, code: string) => expect(promise).rejects.toMatchObject({ code });
    await rejects(embeddingBagBackward(tensor([[1]]), table, ids), 'ERR_SHAPE');
    await rejects(embeddingBagBackward(tensor([[1, 2]], { dtype: 'float64' }) as never, table, ids), 'ERR_DTYPE');
    await rejects(embeddingBagBackward(tensor([[1, Number.NaN]]), table, ids), 'ERR_VALUE');
    await rejects(embeddingBagBackward(tensor([[1, 1]]), table, tensor([[2]]).cast('int32')), 'ERR_RANGE');
    const mean = { mode: 'mean', weightGradient: true } as const;
    await rejects(embeddingBagBackward(tensor([[1, 1]]), table, ids, undefined, mean), 'ERR_ARGUMENT');
  });
});

describe('gatherBackward', () => {
  it('sums the gradients of each row', async () => {
    const ids = tensor([
      [2, 0],
      [2, 1],
    ]).cast('int32');
    const dOut = tensor([
      [
        [1, 2],
        [3, 4],
      ],
      [
        [5, 6],
        [7, 8],
      ],
    ]);
    const { rows, values } = await gatherBackward(
      dOut,
      tensor([
        [0, 0],
        [0, 0],
        [0, 0],
      ]),
      ids,
      { paddingIndex: 1 },
    );
    expect([...rows.dataSync()]).toEqual([0, 2]);
    expect([...values.dataSync()]).toEqual([3, 4, 6, 8]);
  });
});

describe('quantizeRows', () => {
  it.each([8, 4] as const)('keeps every value within half a step: %s bits', async (bits) => {
    const table = [...matrix(20, 34), Array(34).fill(1.5), Array(34).fill(0)];
    const rows: QuantizedRows = await quantizeRows(tensor(table), { bits });
    expect(rows.data.shape).toEqual([22, bits === 8 ? 34 : 17]);
    const back = gatherSync(rows, Int32Array.from(table.keys())).dataSync();
    table.forEach((row, r) => {
      const range = Math.max(...row) - Math.min(...row);
      for (const [c, x] of row.entries())
        expect(Math.abs(back[r * 34 + c]! - x)).toBeLessThanOrEqual(range / (bits === 8 ? 255 : 15) / 2 + 1e-6);
    });
    const sum = embeddingBagSync(rows, Int32Array.of(3, 3, 21), Int32Array.of(0, 3)).dataSync();
    for (let c = 0; c < 34; ++c) expect(sum[c]).toBeCloseTo(2 * back[3 * 34 + c]!, 5);
  });

  it('refuses what it cannot hold', async () => {
    const rejects = (promise: Promise<unknown>, code: string) => expect(promise).rejects.toMatchObject({ code });
    await rejects(quantizeRows(tensor([[1, Number.POSITIVE_INFINITY]])), 'ERR_VALUE');
    await rejects(quantizeRows(tensor([[1, 2, 3]]), { bits: 4 }), 'ERR_SHAPE');
    await rejects(quantizeRows(tensor([[1]]), { bits: 3 as never }), 'ERR_RANGE');
  });
});
