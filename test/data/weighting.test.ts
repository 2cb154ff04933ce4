import { describe, expect, it } from 'vitest';
import { Interactions } from '../../lib/index.js';
import { normalize, weight } from '../reference/weighting.js';

const users = [0, 0, 0, 1, 1, 2, 3, 3];
const items = [0, 1, 2, 0, 3, 0, 2, 4];
const values = [5, 1, 3, 2, 0, 4, 0.5, 7];
const plain = users.map((user, j) => ({ user, item: items[j], value: values[j] }));
const make = (v: readonly number[] = values) => Interactions.fromArrays({ users, items, values: v });

function close(actual: Float32Array, wanted: readonly number[]) {
  expect(actual.length).toBe(wanted.length);
  for (const [j, x] of wanted.entries())
    expect(Math.abs(actual[j] - x)).toBeLessThanOrEqual(1e-6 * Math.max(1, Math.abs(x)));
}

describe('weighting', () => {
  it.each([
    ['binary', {}],
    ['log', {}],
    ['log', { alpha: 40 }],
    ['tfidf', {}],
    ['bm25', {}],
    ['bm25', { k1: 0.4, b: 0.1 }],
    ['bm25', { k1: 0, b: 1 }],
    ['rarity', {}],
    ['rarity', { exponent: 1 }],
  ] as const)('%s %o is the formula', async (scheme, options) => {
    const data = await make();
    const weighted = await data.weight(scheme, options);
    close(await weighted.values.data(), weight(plain, scheme, options));
    expect(weighted.users).toBe(data.users);
    data.dispose();
    expect((await weighted.matrix()).nnz).toBe(8); // memory of its own
  });

  it.each(['mean-center', 'l1', 'l2'] as const)('normalises: %s', async (normalization) => {
    const signed = values.map((v, j) => (j % 3 === 0 ? -v : v));
    const data = await (await make(signed)).normalize(normalization);
    close(
      await data.values.data(),
      normalize(
        plain.map((t, j) => ({ ...t, value: signed[j] })),
        normalization,
      ),
    );
  });

  it('leaves users whose values are all 0', async () => {
    for (const normalization of ['l1', 'l2'] as const) {
      const data = await Interactions.fromArrays({ users: [1, 1], items: [1, 2], values: [0, 0] });
      expect(await (await data.normalize(normalization)).values.data()).toEqual(Float32Array.of(0, 0));
    }
  });

  it('refuses values below 0 and options out of range', async () => {
    const data = await make(values.map((v) => -v));
    for (const scheme of ['log', 'tfidf', 'bm25', 'rarity'] as const)
      await expect(data.weight(scheme)).rejects.toMatchObject({ code: 'ERR_VALUE' });
    await expect(data.weight('log', { alpha: 0 })).rejects.toMatchObject({ code: 'ERR_RANGE' });
    await expect(data.weight('bm25', { b: 2 })).rejects.toMatchObject({ code: 'ERR_RANGE' });
    await expect(data.weight('bm25', { k1: Number.NaN })).rejects.toMatchObject({ code: 'ERR_RANGE' });
    await expect(data.weight('idf' as never)).rejects.toMatchObject({ code: 'ERR_ARGUMENT' });
    await expect(data.normalize('max' as never)).rejects.toMatchObject({ code: 'ERR_ARGUMENT' });
  });

  it('filters, with rows for what is left or with all rows', async () => {
    const data = await make();
    const few = await data.filter({ minValue: 3 });
    expect([few.size, few.users.size, few.items.size]).toEqual([4, 3, 3]);
    expect(few.report.dropped.outOfRange).toBe(4);
    const all = await data.filter({ minValue: 3, users: data.users, items: data.items });
    expect((await all.matrix()).shape).toEqual([4, 5]);
  });
});
