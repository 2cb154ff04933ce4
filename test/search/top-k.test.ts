import { describe, expect, it } from 'vitest';
import { CsrMatrix, full, tensor, topK, topKSync } from '../../lib/index.js';
import { numbers } from '../models/suite.js';
import { ranking } from '../reference/top-k.js';

const [n, d, q] = [130, 9, 5];
const next = numbers(3);
const matrix = (rows: number) =>
  Array.from({ length: rows }, () => Array.from({ length: d }, () => Math.fround(next() - 0.5)));
const [queries, items] = [matrix(q), matrix(n)];
const [queryTensor, itemTensor] = [tensor(queries), tensor(items)];

describe('topK', () => {
  it.each(['innerProduct', 'cosine', 'l2'] as const)('is queued, and agrees with brute force: %s', async (metric) => {
    const { ids, scores } = topK(queryTensor, itemTensor, 7, { metric });
    expect([ids.shape, ids.dtype, scores.shape, scores.dtype]).toEqual([[q, 7], 'int32', [q, 7], 'float32']);
    const exact = queries.map((x) => ranking(x, items, metric).slice(0, 7));
    expect([...(await ids.data())]).toEqual(exact.flat().map((e) => e.row));
    for (const [i, s] of (await scores.data()).entries()) expect(s).toBeCloseTo(exact.flat()[i]!.score, 5);
    const sync = topKSync(queryTensor, itemTensor, 7, { metric });
    expect(sync.ids.dataSync()).toEqual(ids.dataSync());
    expect(sync.scores.dataSync()).toEqual(scores.dataSync());
  });

  it('follows operations that are still queued', async () => {
    const halves = tensor(queries, { dtype: 'float64' });
    const { ids } = topK(halves.cast('float32'), itemTensor, 3);
    expect(await ids.data()).toEqual(await topK(queryTensor, itemTensor, 3).ids.data());
  });

  it('filters by bitmap and by rows of a matrix', async () => {
    const best = queries.map((x) => ranking(x, items, 'innerProduct')[0]!.row);
    const seen = await CsrMatrix.fromCoo(Int32Array.from(best.keys()), Int32Array.from(best), undefined, {
      shape: [q, n],
    });
    const allowed = new BigInt64Array(3).fill(-1n);
    allowed[0]! &= ~1n; // all but item 0
    const { ids } = topK(queryTensor, itemTensor, 2, { filter: { seen, allowed } });
    const exact = queries.map((x, i) =>
      ranking(x, items, 'innerProduct', (row) => row !== 0 && row !== best[i]).slice(0, 2),
    );
    expect([...(await ids.data())]).toEqual(exact.flat().map((e) => e.row));
    const none = topK(queryTensor, itemTensor, 1, { filter: { allowed: new BigInt64Array(3) } });
    expect([...(await none.ids.data())]).toEqual([-1, -1, -1, -1, -1]);
    expect((await none.scores.data()).every(Number.isNaN)).toBe(true);
  });

  it('throws at once for what it can tell, and poisons the result for the rest', async () => {
    const thrown = (code: string) => expect.objectContaining({ code });
    expect(() => topK(queryTensor, itemTensor, 0)).toThrow(thrown('ERR_RANGE'));
    expect(() => topK(queryTensor, itemTensor, n + 1)).toThrow(thrown('ERR_RANGE'));
    expect(() => topK(full([2, 3]), itemTensor, 1)).toThrow(thrown('ERR_SHAPE'));
    expect(() => topK(full([9]), itemTensor, 1)).toThrow(thrown('ERR_SHAPE'));
    expect(() => topK(tensor([[1]], { dtype: 'int8' }) as never, itemTensor, 1)).toThrow(thrown('ERR_DTYPE'));
    expect(() => topK(queryTensor, itemTensor, 1, { metric: 'dot' as never })).toThrow(thrown('ERR_ARGUMENT'));
    const seen = { indptr: [0, 0], indices: [], values: [], cols: n };
    expect(() => topK(queryTensor, itemTensor, 1, { filter: { seen: seen as never } })).toThrow(thrown('ERR_ARGUMENT'));
    const { ids } = topK(full([1, d], { value: Number.NaN }), itemTensor, 1);
    await expect(ids.data()).rejects.toMatchObject({ code: 'ERR_VALUE' });
    await expect(ids.cast('int64').data()).rejects.toMatchObject({ code: 'ERR_VALUE' });
  });
});
