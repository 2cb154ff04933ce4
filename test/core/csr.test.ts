import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { CsrMatrix, setThreads, threads } from '../../lib/index.js';

const dense = async (m: CsrMatrix) => {
  const out = Array.from({ length: m.shape[0] }, () => new Array<number>(m.shape[1]).fill(0));
  const [ptr, ids, values] = await Promise.all([m.indptr.data(), m.indices.data(), m.values.data()]);
  for (let r = 0; r < m.shape[0]; r++)
    for (let i = Number(ptr[r]); i < Number(ptr[r + 1]); i++) out[r]![ids[i]!]! += values[i]!;
  return out;
};
const coo = fc
  .integer({ min: 1, max: 12 })
  .chain((rows) =>
    fc
      .integer({ min: 1, max: 12 })
      .chain((cols) =>
        fc.record({
          shape: fc.constant([rows, cols] as const),
          cells: fc.array(fc.tuple(fc.nat(rows - 1), fc.nat(cols - 1), fc.integer({ min: -9, max: 9 })), {
            maxLength: 60,
          }),
        }),
      ),
  );
const build = (
  c: { shape: readonly [number, number]; cells: [number, number, number][] },
  duplicates?: 'sum' | 'refuse' | 'last' | 'max',
) =>
  CsrMatrix.fromCoo(
    Int32Array.from(c.cells, (x) => x[0]),
    Int32Array.from(c.cells, (x) => x[1]),
    Float32Array.from(c.cells, (x) => x[2]),
    { shape: c.shape, ...(duplicates && { duplicates }) },
  );

describe('CsrMatrix', () => {
  it('fromCoo adds up the cells, whatever their order (property)', () =>
    fc.assert(
      fc.asyncProperty(coo, async (c) => {
        const want = Array.from({ length: c.shape[0] }, () => new Array<number>(c.shape[1]).fill(0));
        for (const [r, k, v] of c.cells) want[r]![k]! += v;
        expect(await dense(await build(c))).toEqual(want);
      }),
    ));

  it('transpose twice is the matrix (property)', () =>
    fc.assert(
      fc.asyncProperty(coo, async (c) => {
        const m = await build(c);
        const t = await m.transpose();
        expect(t.shape).toEqual([c.shape[1], c.shape[0]]);
        const d = await dense(m);
        expect(await dense(t)).toEqual(d[0]!.map((_, k) => d.map((row) => row[k]!)));
        const back = await t.transpose();
        for (const part of ['indptr', 'indices', 'values'] as const)
          expect(await back[part].data()).toEqual(await m[part].data());
      }),
    ));

  it('merges duplicates as asked', async () => {
    const c = {
      shape: [1, 1] as const,
      cells: [
        [0, 0, 2],
        [0, 0, 5],
        [0, 0, 3],
      ] as [number, number, number][],
    };
    const value = async (d: 'sum' | 'last' | 'max') => (await (await build(c, d)).values.data())[0];
    expect([await value('sum'), await value('last'), await value('max')]).toEqual([10, 3, 5]);
    await expect(build(c, 'refuse')).rejects.toMatchObject({
      code: 'ERR_VALUE',
      message: expect.stringContaining('row 0 has column 0 twice'),
    });
  });

  it('is the same at any number of threads', async () => {
    const n = 300_000;
    const rows = Int32Array.from({ length: n }, (_, i) => (i * 7919) % 1009);
    const cols = Int32Array.from({ length: n }, (_, i) => (i * 104729) % 997);
    const values = Float32Array.from({ length: n }, (_, i) => Math.sin(i));
    const before = threads();
    const results = [];
    for (const count of [1, 2, 4]) {
      setThreads(count);
      const m = await CsrMatrix.fromCoo(rows, cols, values, { shape: [1009, 997] });
      const parts = await Promise.all([m.indptr.data(), m.indices.data(), m.values.data()]);
      results.push(Buffer.concat(parts.map((p) => Buffer.from(p.buffer, p.byteOffset, p.byteLength))));
    }
    setThreads(before);
    expect(results[1]!.equals(results[0]!)).toBe(true);
    expect(results[2]!.equals(results[0]!)).toBe(true);
  });

  it.each([
    [
      'id over the rows',
      () => CsrMatrix.fromCoo(Int32Array.of(2), Int32Array.of(0), undefined, { shape: [2, 2] }),
      'ERR_RANGE',
      'rows',
    ],
    [
      'negative id',
      () => CsrMatrix.fromCoo(Int32Array.of(0), Int32Array.of(-1), undefined, { shape: [2, 2] }),
      'ERR_RANGE',
      'cols',
    ],
    [
      'lengths differ',
      () => CsrMatrix.fromCoo(Int32Array.of(0), Int32Array.of(0, 1), undefined, { shape: [2, 2] }),
      'ERR_SHAPE',
      'cols',
    ],
    [
      'NaN',
      () => CsrMatrix.fromCoo(Int32Array.of(0), Int32Array.of(0), Float32Array.of(Number.NaN), { shape: [2, 2] }),
      'ERR_VALUE',
      'values',
    ],
    [
      'infinite',
      () => CsrMatrix.fromCoo(Int32Array.of(0), Int32Array.of(0), Float32Array.of(Infinity), { shape: [2, 2] }),
      'ERR_VALUE',
      'values',
    ],
    [
      'floats for ids',
      () => CsrMatrix.fromCoo(Float32Array.of(0) as never, Int32Array.of(0), undefined, { shape: [2, 2] }),
      'ERR_DTYPE',
      'rows',
    ],
    [
      'negative shape',
      () => CsrMatrix.fromCoo(Int32Array.of(), Int32Array.of(), undefined, { shape: [-1, 2] }),
      'ERR_RANGE',
      'shape',
    ],
    [
      'falling indptr',
      () => CsrMatrix.from({ indptr: [0, 2, 1], indices: [0], values: [1], cols: 2 }),
      'ERR_VALUE',
      'indptr',
    ],
    [
      'id over the columns',
      () => CsrMatrix.from({ indptr: [0, 1], indices: [2], values: [1], cols: 2 }),
      'ERR_RANGE',
      'indices',
    ],
    [
      'ids that do not rise',
      () => CsrMatrix.from({ indptr: [0, 2], indices: [1, 1], values: [1, 1], cols: 2 }),
      'ERR_VALUE',
      'indices',
    ],
    [
      'indptr too long',
      () => CsrMatrix.from({ indptr: [0, 3], indices: [1], values: [1], cols: 2 }),
      'ERR_SHAPE',
      'indptr',
    ],
    [
      'a sum beyond float32',
      () => CsrMatrix.fromCoo(Int32Array.of(0, 0), Int32Array.of(0, 0), Float32Array.of(3e38, 3e38), { shape: [1, 1] }),
      'ERR_VALUE',
      'values',
    ],
    [
      'detached arrays',
      () => {
        const ids = new Int32Array(4);
        structuredClone(ids, { transfer: [ids.buffer] });
        return CsrMatrix.fromCoo(ids, ids, undefined, { shape: [1, 1] });
      },
      'ERR_ARGUMENT',
      'rows',
    ],
    ['empty indptr', () => CsrMatrix.from({ indptr: [], indices: [], values: [], cols: 2 }), 'ERR_SHAPE', 'indptr'],
  ])('refuses %s', async (_, make, code, word) => {
    await expect(make()).rejects.toMatchObject({ name: 'TopknotError', code, message: expect.stringContaining(word) });
  });

  it('cannot be changed after it was validated', async () => {
    const m = await CsrMatrix.fromCoo(Int32Array.of(0), Int32Array.of(999), undefined, { shape: [1, 1000] });
    expect(() => {
      (m.shape as [number, number])[1] = 1;
    }).toThrow(TypeError);
    expect(() => Object.assign(m, { indices: m.indptr })).toThrow(TypeError);
  });

  it('empty matrices are fine', async () => {
    const m = await CsrMatrix.fromCoo(new Int32Array(), new Int32Array(), undefined, { shape: [0, 0] });
    expect([m.shape, m.nnz]).toEqual([[0, 0], 0]);
    expect((await m.transpose()).shape).toEqual([0, 0]);
  });

  it('an abort rejects with its reason', async () => {
    const stop = AbortSignal.abort(new Error('no more'));
    await expect(
      CsrMatrix.fromCoo(Int32Array.of(0), Int32Array.of(0), undefined, { shape: [1, 1], signal: stop }),
    ).rejects.toThrow('no more');
  });
});
