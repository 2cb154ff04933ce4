import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { embeddingBag, embeddingBagSync, gather, gatherSync, tensor } from '../../lib/index.js';
import { setThreads, threads } from '../../lib/runtime.js';
import { type Bags, bagsOf } from '../reference/embedding.js';

const rowsOf = (flat: ArrayLike<number>, cols: number) =>
  Array.from({ length: flat.length / cols }, (_, r) => Array.from(flat).slice(r * cols, (r + 1) * cols));
const thrown = (code: string) => expect.objectContaining({ code });

/** A table, and bags with empty ones, duplicates and padding. Small integers, so that sums are exact. */
const cases = fc
  .record({ rows: fc.integer({ min: 1, max: 20 }), cols: fc.integer({ min: 1, max: 200 }) })
  .chain(({ rows, cols }) =>
    fc.record({
      table: fc.array(fc.array(fc.integer({ min: -8, max: 8 }), { minLength: cols, maxLength: cols }), {
        minLength: rows,
        maxLength: rows,
      }),
      bags: fc.array(fc.array(fc.integer({ min: 0, max: rows - 1 }), { maxLength: 9 }), { maxLength: 8 }),
      mode: fc.constantFrom('sum' as const, 'mean' as const, 'max' as const),
      padding: fc.option(fc.integer({ min: 0, max: rows - 1 }), { nil: undefined }),
      weighted: fc.boolean(),
      dtype: fc.constantFrom('float32' as const, 'float16' as const, 'bfloat16' as const),
    }),
  );

describe('embeddingBag', () => {
  it('agrees with the definition for any bags and any number of columns', () => {
    fc.assert(
      fc.property(cases, ({ table, bags: lists, mode, padding, weighted, dtype }) => {
        const ids = lists.flat();
        const offsets = [0, ...lists.map((_, b) => lists.slice(0, b + 1).flat().length)];
        const weights = weighted && mode === 'sum' ? ids.map((_, i) => (i % 5) - 2) : undefined;
        const bags: Bags = { ids, offsets, mode, weights, paddingIndex: padding };
        const out = embeddingBagSync(tensor(table, { dtype }), Int32Array.from(ids), Int32Array.from(offsets), {
          mode,
          weights: weights && Float32Array.from(weights),
          paddingIndex: padding,
        });
        expect(out.shape).toEqual([lists.length, table[0]!.length]);
        const exact = bagsOf(table, bags).flat();
        expect([...out.dataSync()]).toEqual(exact.map((x) => Math.fround(x) + 0));
      }),
      { numRuns: 300 },
    );
  });

  it('is queued, and takes tensors of ids that are still being computed', async () => {
    const table = tensor([
      [1, 2],
      [3, 4],
      [5, 6],
    ]);
    const ids = tensor([2, 0, 1], { dtype: 'float32' }).cast('int64');
    const offsets = tensor([0, 2, 2, 3], { dtype: 'float32' }).cast('int32');
    expect([...(await embeddingBag(table, ids, offsets).data())]).toEqual([6, 8, 0, 0, 3, 4]);
    const fixed = embeddingBag(table.cast('bfloat16'), ids.reshape([1, 3]), undefined, { mode: 'max' });
    expect([...(await fixed.data())]).toEqual([5, 6]);
  });

  it.skipIf(process.env.TOPKNOT_TEST_DEVICE)(
    'gives the same bytes at any thread count, for bags of very different lengths',
    () => {
      const [rows, cols, n] = [500, 37, 40_000];
      const table = tensor(
        Float32Array.from({ length: rows * cols }, (_, i) => Math.sin(i)),
        { shape: [rows, cols] },
      );
      const ids = Int32Array.from({ length: n }, (_, i) => (i * 7919) % rows);
      const offsets = Int32Array.of(0, 0, 30_000, ...Array.from({ length: 10_001 }, (_, i) => 30_000 + i));
      const before = threads();
      const results = [1, 2, 7].map((count) => {
        setThreads(count);
        return Buffer.from(embeddingBagSync(table, ids, offsets, { mode: 'mean' }).dataSync().buffer);
      });
      setThreads(before);
      expect(results.map((bytes) => bytes.equals(results[0]!))).toEqual([true, true, true]);
    },
  );

  it('throws at once for what it can tell', () => {
    const table = tensor([[1, 2]]);
    const [ids, offsets] = [Int32Array.of(0, 0), Int32Array.of(0, 2)];
    expect(() => embeddingBag(table, ids)).toThrow(thrown('ERR_SHAPE'));
    expect(() => embeddingBag(table, Float32Array.of(0) as never, offsets)).toThrow(thrown('ERR_DTYPE'));
    expect(() => embeddingBag(table, ids, Int32Array.of())).toThrow(thrown('ERR_SHAPE'));
    expect(() => embeddingBag(tensor([1, 2]), ids, offsets)).toThrow(thrown('ERR_SHAPE'));
    expect(() => embeddingBag(tensor([[1]], { dtype: 'float64' }) as never, ids, offsets)).toThrow(thrown('ERR_DTYPE'));
    expect(() => embeddingBag(tensor([[1]], { dtype: 'int8' }) as never, ids, offsets)).toThrow(thrown('ERR_ARGUMENT'));
    expect(() => embeddingBag(table, ids, offsets, { mode: 'min' as never })).toThrow(thrown('ERR_ARGUMENT'));
    expect(() => embeddingBag(table, ids, offsets, { padding: 0 } as never)).toThrow(thrown('ERR_ARGUMENT'));
    expect(() => embeddingBag(table, ids, offsets, { paddingIndex: 1 })).toThrow(thrown('ERR_RANGE'));
    const weights = Float32Array.of(1, 1);
    expect(() => embeddingBag(table, ids, offsets, { mode: 'mean', weights })).toThrow(thrown('ERR_ARGUMENT'));
    expect(() => embeddingBag(table, ids, offsets, { weights: weights.subarray(1) })).toThrow(thrown('ERR_SHAPE'));
    const wide = new Float64Array(2);
    expect(() => embeddingBag(table, ids, offsets, { weights: wide as never })).toThrow(thrown('ERR_DTYPE'));
  });

  it.each([
    ['an id beyond the table', [0, 3, 1], [0, 3], /ids: .* entry 1 is 3/],
    ['a negative id', [0, 1, -1], [0, 3], /ids: .* entry 2 is -1/],
    ['offsets that fall', [0, 1, 1], [0, 2, 1, 3], /offsets: .* entry 2 is 1 after 2/],
    ['offsets that overrun', [0, 1, 1], [0, 4], /offsets: .* entry 1 is 4/],
    ['offsets that stop early', [0, 1, 1], [0, 2], /offsets: expected the last entry to be 3/],
    ['offsets that start late', [0, 1, 1], [1, 3], /offsets: expected to start at 0/],
  ])('poisons the result for %s', async (_, ids, offsets, message) => {
    const table = tensor([[1], [2], [3]]);
    const out = embeddingBag(table, Int32Array.from(ids), BigInt64Array.from(offsets, BigInt));
    await expect(out.data()).rejects.toMatchObject({ code: 'ERR_RANGE', message: expect.stringMatching(message) });
    expect(() => embeddingBagSync(table, Int32Array.from(ids), Int32Array.from(offsets))).toThrow(message);
  });
});

describe('gather', () => {
  it('takes rows in the order of ids of any shape, in the dtype of the table', async () => {
    const table = Array.from({ length: 9 }, (_, r) => Array.from({ length: 5 }, (_, c) => r * 16 + c));
    const ids = tensor([
      [8, 0, 0],
      [3, 7, 8],
    ]).cast('int32');
    for (const dtype of ['float32', 'float16', 'bfloat16'] as const) {
      const out = gather(tensor(table, { dtype }), ids);
      expect([out.shape, out.dtype]).toEqual([[2, 3, 5], dtype]);
      expect(rowsOf(await out.data(), 5)).toEqual([8, 0, 0, 3, 7, 8].map((r) => table[r]));
    }
    expect(gatherSync(tensor(table), new Int32Array()).shape).toEqual([0, 5]);
  });

  it('names the entry that is no row', async () => {
    const out = gather(tensor([[1], [2]]), BigInt64Array.of(0n, 2n ** 32n));
    await expect(out.data()).rejects.toMatchObject({ code: 'ERR_RANGE', message: /entry 1 is 4294967296/ as never });
  });
});
