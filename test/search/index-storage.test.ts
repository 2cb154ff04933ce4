import { describe, expect, it } from 'vitest';
import { FlatIndex, tensor, topK, type VectorStorage } from '../../lib/index.js';
import { numbers } from '../models/suite.js';
import { ranking } from '../reference/top-k.js';

const metrics = ['innerProduct', 'cosine', 'l2'] as const;
const [n, d] = [400, 20];

function made(seed: number, count: number): { flat: Float32Array; rows: Float32Array[] } {
  const next = numbers(seed);
  const flat = Float32Array.from({ length: count * d }, () => next() - 0.5);
  return { flat, rows: Array.from({ length: count }, (_, i) => flat.subarray(i * d, (i + 1) * d)) };
}
const items = made(1, n);
const asked = made(2, 9);
const ids = Array.from({ length: n }, (_, i) => `v${i}`);

describe.each(['float16', 'bfloat16'] as const)('%s', (storage) => {
  it.each(metrics)('scores the numbers as they are stored: %s', async (metric) => {
    const kept = await tensor(items.flat, { shape: [n, d] })
      .cast(storage)
      .data();
    const rows = Array.from({ length: n }, (_, i) => kept.subarray(i * d, (i + 1) * d));
    const byOption = await FlatIndex.from(ids, items.flat, { metric, storage });
    const byTensor = await FlatIndex.from(ids, tensor(items.flat, { shape: [n, d] }).cast(storage), { metric });
    expect([byOption.storage, byTensor.storage]).toEqual([storage, storage]);
    const found = byOption.searchSync(asked.rows, { k: 25 });
    expect(byTensor.searchSync(asked.rows, { k: 25 })).toEqual(found);
    for (const [q, query] of asked.rows.entries()) {
      const exact = ranking(query, rows, metric).slice(0, 25);
      expect(found[q]!.ids).toEqual(exact.map((e) => ids[e.row]));
      for (const [j, e] of exact.entries()) expect(found[q]!.scores[j]).toBeCloseTo(e.score, 5);
      expect(await byOption.search(query, { k: 25 })).toEqual(found[q]);
    }
    const queued = topK(
      tensor(asked.flat, { shape: [9, d] }),
      tensor(items.flat, { shape: [n, d] }).cast(storage),
      25,
      { metric },
    );
    expect([...(await queued.ids.data())].map((row) => ids[row])).toEqual(found.flatMap((f) => f.ids));
  });

  it('refuses numbers that it cannot hold', async () => {
    const huge = FlatIndex.from(['a'], Float32Array.of(3.4e38), { storage });
    await expect(huge).rejects.toMatchObject({ code: 'ERR_VALUE', message: expect.stringMatching(/^vectors: .*inf/) });
  });
});

describe('int8', () => {
  it.each(metrics)('gives exact scores, misses next to nothing, and nothing with exact: %s', async (metric) => {
    const index = await FlatIndex.from(ids, items.flat, { metric, storage: 'int8' });
    const floats = await FlatIndex.from(ids, items.flat, { metric });
    const exact = floats.searchSync(asked.rows, { k: 10 });
    expect(index.searchSync(asked.rows, { exact: true })).toEqual(exact);
    expect(await index.search(asked.rows, { exact: true, filter: { deny: ['v1'] } })).toEqual(
      floats.searchSync(asked.rows, { filter: { deny: ['v1'] } }),
    );
    const { proven, fallbacks } = index.stats;
    expect(proven + fallbacks).toBe(18);
    for (const [q, { ids: found, scores }] of index.searchSync(asked.rows, { k: 10 }).entries())
      for (const [j, id] of found.entries()) {
        const at = exact[q]!.ids.indexOf(id);
        if (at >= 0) expect(scores[j]).toBe(exact[q]!.scores[at]);
      }
    expect(await index.recall(asked.rows)).toBeGreaterThan(0.99);
    expect(await index.recall(asked.rows, { rescore: 1 })).toBeLessThanOrEqual(await index.recall(asked.rows));
    expect(await index.recall(asked.rows, { k: n })).toBe(1);
    expect(await floats.recall(asked.rows)).toBe(1);
  });

  it('tells what it could not prove', async () => {
    const close = items.flat.map((x) => 1 + 1e-5 * x);
    const index = await FlatIndex.from(ids, close, { storage: 'int8' });
    const floats = await FlatIndex.from(ids, close);
    expect(index.searchSync(asked.rows, { exact: true })).toEqual(floats.searchSync(asked.rows));
    expect(index.stats).toEqual({ proven: 0, fallbacks: 9 });
    expect(await index.recall(asked.rows, { rescore: 1 })).toBeLessThan(1); // the codes alone cannot tell them apart
  });

  it('keeps floats of 16 bits for the scores when it is given such', async () => {
    const halves = tensor(items.flat, { shape: [n, d] }).cast('float16');
    const index = await FlatIndex.from(ids, halves, { storage: 'int8' });
    const exact = await FlatIndex.from(ids, halves);
    expect(index.searchSync(asked.rows, { exact: true })).toEqual(exact.searchSync(asked.rows));
    await index.add(['more'], items.rows[0]!); // float32 is converted
    await exact.add(['more'], items.rows[0]!);
    expect(index.searchSync(asked.rows, { exact: true })).toEqual(exact.searchSync(asked.rows));
  });
});

describe('binary', () => {
  const next = numbers(3);
  const bits = Uint8Array.from({ length: n * 5 }, () => 256 * next());
  const rows = Array.from({ length: n }, (_, i) => bits.subarray(i * 5, i * 5 + 5));
  const distance = (a: Uint8Array, b: Uint8Array) =>
    a.reduce((sum, x, i) => sum + (x ^ b[i]!).toString(2).replaceAll('0', '').length, 0);

  it('finds the least Hamming distances, equal ones by order', async () => {
    const index = await FlatIndex.from(ids, bits);
    expect([index.storage, index.metric, index.dimensions]).toEqual(['binary', 'hamming', 40]);
    const queries = Array.from({ length: 7 }, () => Uint8Array.from({ length: 5 }, () => 256 * next()));
    const found = await index.search(queries, { k: n });
    for (const [q, query] of queries.entries()) {
      const exact = rows.map((row, i) => [distance(query, row), i] as const).sort((a, b) => a[0] - b[0] || a[1] - b[1]);
      expect(found[q]!.ids).toEqual(exact.map(([, i]) => ids[i]));
      expect([...found[q]!.scores]).toEqual(exact.map(([score]) => score));
      expect(index.searchSync(query, { k: n })).toEqual(found[q]);
      expect(index.searchSync(query, { filter: { allow: ['v5'] } }).ids).toEqual(['v5']);
    }
    const asTensor = tensor(Uint8Array.from(queries.flatMap((q) => [...q])), { shape: [7, 5] });
    expect(index.searchSync(asTensor, { k: n })).toEqual(found);
  });
});

describe('bad input', () => {
  const one = Float32Array.of(1, 2);
  const cases: [string, string, RegExp, () => unknown][] = [
    [
      'bits by cosine',
      'ERR_ARGUMENT',
      /^metric: 'hamming'/,
      () => FlatIndex.from([1], Uint8Array.of(1), { metric: 'cosine' }),
    ],
    ['floats by hamming', 'ERR_ARGUMENT', /^metric: 'hamming'/, () => FlatIndex.from([1], one, { metric: 'hamming' })],
    [
      'floats as bits',
      'ERR_ARGUMENT',
      /^vectors: expected a Uint8Array/,
      () => FlatIndex.from([1], one, { storage: 'binary' }),
    ],
    [
      'bits as floats',
      'ERR_ARGUMENT',
      /^vectors: expected a Float32Array/,
      () => FlatIndex.from([1], Uint8Array.of(1), { storage: 'float16' }),
    ],
    [
      'an unknown storage',
      'ERR_ARGUMENT',
      /^storage: /,
      () => FlatIndex.from([1], one, { storage: 'int4' as VectorStorage }),
    ],
    [
      'rescore without codes',
      'ERR_ARGUMENT',
      /^options.rescore: /,
      async () => (await FlatIndex.from([1], one)).search(one, { rescore: 2 }),
    ],
    [
      'exact without codes',
      'ERR_ARGUMENT',
      /^options.exact: /,
      async () => (await FlatIndex.from([1], one)).search(one, { exact: true }),
    ],
    [
      'rescore of 0',
      'ERR_RANGE',
      /^rescore: /,
      async () => (await FlatIndex.from([1], one, { storage: 'int8' })).search(one, { rescore: 0 }),
    ],
    [
      'floats asked of bits',
      'ERR_ARGUMENT',
      /^query: expected a Uint8Array/,
      async () => (await FlatIndex.from([1], Uint8Array.of(1))).search([1]),
    ],
    [
      'bytes asked of floats',
      'ERR_ARGUMENT',
      /^query: /,
      async () => (await FlatIndex.from([1], one)).search(Uint8Array.of(1, 2)),
    ],
    [
      'bits of another length',
      'ERR_SHAPE',
      /^query: expected 1 bytes/,
      async () => (await FlatIndex.from([1], Uint8Array.of(1))).search(Uint8Array.of(1, 2)),
    ],
    [
      'NaN asked of codes',
      'ERR_VALUE',
      /^queries: /,
      async () => (await FlatIndex.from([1], one, { storage: 'int8' })).search([1, Number.NaN]),
    ],
    [
      'NaN among items for codes',
      'ERR_VALUE',
      /^vectors: /,
      () => FlatIndex.from([1], Float32Array.of(Number.NaN, 1), { storage: 'int8' }),
    ],
  ];
  it.each(cases)('refuses %s', async (_, code, message, call) => {
    await expect((async () => call())()).rejects.toMatchObject({
      name: 'TopknotError',
      code,
      message: expect.stringMatching(message),
    });
  });

  it('a zero vector scores 0 under cosine, in every storage', async () => {
    for (const storage of ['float32', 'float16', 'bfloat16', 'int8'] as const) {
      const index = await FlatIndex.from(['zero', 'same', 'other'], Float32Array.of(0, 0, 1, 2, -2, 1), {
        metric: 'cosine',
        storage,
      });
      expect(index.searchSync([0, 0])).toEqual({ ids: ['zero', 'same', 'other'], scores: Float32Array.of(0, 0, 0) });
      expect(index.searchSync([-1, -2])).toEqual({ ids: ['zero', 'other', 'same'], scores: Float32Array.of(0, 0, -1) });
    }
  });
});
