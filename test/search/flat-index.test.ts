import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { FlatIndex, type Id, type SearchResult, tensor, type VectorMetric } from '../../lib/index.js';
import { numbers } from '../models/suite.js';
import { ranking } from '../reference/top-k.js';

const metrics: VectorMetric[] = ['innerProduct', 'cosine', 'l2'];
const dir = mkdtempSync(join(tmpdir(), 'topknot-index-'));
afterAll(() => rmSync(dir, { recursive: true }));

/** n vectors of d numbers between -1 and 1, and the same as one array. */
function vectors(n: number, d: number, seed: number, round = (x: number) => x) {
  const next = numbers(seed);
  const flat = Float32Array.from({ length: n * d }, () => round(2 * next() - 1));
  return { flat, rows: Array.from({ length: n }, (_, i) => flat.subarray(i * d, (i + 1) * d)) };
}

/** Scores agree to float32 rounding; ids agree wherever scores are apart by more than that. */
function expectAgreement(
  found: SearchResult<number>,
  exact: { row: number; score: number }[],
  k: number,
  scale: number,
): void {
  const tolerance = 1e-5 * scale;
  expect(found.ids.length).toBe(Math.min(k, exact.length));
  expect(found.scores.length).toBe(found.ids.length);
  const scoreOf = new Map(exact.map((e) => [e.row, e.score]));
  for (const [i, id] of found.ids.entries()) {
    expect(Math.abs(found.scores[i]! - exact[i]!.score)).toBeLessThanOrEqual(tolerance);
    expect(Math.abs(scoreOf.get(id)! - exact[i]!.score)).toBeLessThanOrEqual(tolerance);
  }
  expect(new Set(found.ids).size).toBe(found.ids.length);
}

describe.each(metrics)('%s', (metric) => {
  it('agrees with float64 brute force for any shape, k and filter', async () => {
    const shape = fc.record({
      n: fc.integer({ min: 1, max: 300 }),
      d: fc.integer({ min: 1, max: 70 }),
      queries: fc.integer({ min: 1, max: 9 }),
      k: fc.integer({ min: 1, max: 300 }),
      seed: fc.nat(),
      deny: fc.array(fc.nat(299), { maxLength: 20 }),
      allow: fc.option(fc.array(fc.nat(299), { maxLength: 60 }), { nil: undefined }),
    });
    const property = async ({ n, d, queries, k: wanted, seed, deny, allow }: Parameters<typeof check>[0]) =>
      check({ n, d, queries, k: wanted, seed, deny, allow });
    async function check(o: {
      n: number;
      d: number;
      queries: number;
      k: number;
      seed: number;
      deny: number[];
      allow: number[] | undefined;
    }) {
      const k = Math.min(o.k, o.n);
      const items = vectors(o.n, o.d, o.seed);
      const asked = vectors(o.queries, o.d, o.seed + 1);
      const ids = Array.from({ length: o.n }, (_, i) => i);
      using index = await FlatIndex.from(ids, items.flat, { metric });
      const filter = { deny: o.deny, allow: o.allow };
      const found = await index.search(asked.rows, { k, filter });
      const allowed = (row: number) => !o.deny.includes(row) && (!o.allow || o.allow.includes(row));
      for (const [q, query] of asked.rows.entries()) {
        expectAgreement(found[q]!, ranking(query, items.rows, metric, allowed), k, o.d);
        expect(index.searchSync(query, { k, filter })).toEqual(found[q]);
        expect(await index.search(query, { k, filter })).toEqual(found[q]);
      }
      expect(await index.search(tensor(asked.flat, { shape: [o.queries, o.d] }), { k, filter })).toEqual(found);
      expect(index.searchSync(asked.rows, { k, filter })).toEqual(found);
    }
    await fc.assert(fc.asyncProperty(shape, property), { numRuns: 40 });
  });

  it('puts equal scores in the order of the ids given', async () => {
    // Small integers: every score is exact, and many are equal.
    const items = vectors(500, 3, 5, Math.round);
    const ids = Array.from({ length: 500 }, (_, i) => `id${i}`);
    const index = await FlatIndex.from(ids, items.flat, { metric });
    for (const query of vectors(20, 3, 6, Math.round).rows) {
      const exact = metric === 'cosine' ? undefined : ranking(query, items.rows, metric);
      const { ids: found, scores } = index.searchSync(query, { k: 500 });
      if (exact) expect(found).toEqual(exact.map((e) => `id${e.row}`));
      for (let i = 1; i < 500; i++)
        if (scores[i] === scores[i - 1])
          expect(Number(found[i]!.slice(2))).toBeGreaterThan(Number(found[i - 1]!.slice(2)));
    }
  });

  it('returns nothing where everything is filtered out', async () => {
    const index = await FlatIndex.from<string>(['a', 'b'], Float32Array.of(1, 2), { metric });
    const nothing = { ids: [], scores: new Float32Array() };
    expect(await index.search([1], { filter: { allow: [] } })).toEqual(nothing);
    expect(index.searchSync([1], { filter: { deny: ['a', 'b', 'c'] } })).toEqual(nothing);
    expect(index.searchSync([[1], [2]], { filter: { allow: ['b'], deny: ['b'] } })).toEqual([nothing, nothing]);
    expect(index.searchSync([1], { k: 2, filter: { deny: ['a'] } }).ids).toEqual(['b']);
  });

  it('searches for the query as it was when it was asked', async () => {
    const index = await FlatIndex.from<string>(['x', 'y'], Float32Array.of(1, 0, 0, 1), { metric });
    for (const options of [{ k: 1 }, { k: 1, filter: { deny: ['z'] } }]) {
      const query = Float32Array.of(1, 0);
      const answer = index.search(query, options);
      query.set([0, 1]);
      expect((await answer).ids).toEqual(['x']);
    }
  });

  it('saves and loads, byte for byte', async () => {
    const items = vectors(100, 7, 8);
    const index = await FlatIndex.from(
      items.rows.map((_, i) => 2n ** 70n + BigInt(i)),
      items.flat,
      { metric },
    );
    const path = join(dir, metric);
    await index.save(path);
    const back = await FlatIndex.load<bigint>(path);
    expect([back.metric, back.size, back.dimensions]).toEqual([metric, 100, 7]);
    const asked = vectors(10, 7, 9).rows;
    expect(back.searchSync(asked, { k: 100 })).toEqual(index.searchSync(asked, { k: 100 }));
    await back.save(`${path}-again`);
    expect(readFileSync(`${path}-again`).equals(readFileSync(path))).toBe(true);
    writeFileSync(path, readFileSync(path).subarray(0, 200));
    await expect(FlatIndex.load(path)).rejects.toMatchObject({ code: 'ERR_FORMAT' });
  });
});

const idTypes: [string, Id[]][] = [
  ['string', ['b', 'a', 'ü']],
  ['number', [2 ** 53, -1.5, 0]],
  ['bigint', [2n ** 63n, -5n, 2n ** 53n + 1n]],
];
it.each(idTypes)('gives back ids as they came: %s', async (_, ids) => {
  const index = await FlatIndex.from(ids, Float32Array.of(3, 2, 1));
  expect(index.searchSync([1]).ids).toEqual(ids);
  expect((await index.search([1], { filter: { deny: [ids[0]!] } })).ids).toEqual(ids.slice(1));
});

it('copies what it is given', async () => {
  const flat = Float32Array.of(1, 2, 3, 4);
  const index = await FlatIndex.from([1, 2], flat);
  const shared = tensor(flat, { shape: [2, 2] });
  const other = await FlatIndex.from([1, 2], shared);
  flat.fill(9);
  shared.dispose();
  expect([...index.searchSync([1, 0]).scores]).toEqual([3, 1]);
  expect([...other.searchSync([1, 0]).scores]).toEqual([3, 1]);
});

it('leaves the caller its tensor', async () => {
  const vectors = tensor([[1, 2]]);
  const index = await FlatIndex.from(['a'], vectors);
  index.dispose();
  expect([...vectors.dataSync()]).toEqual([1, 2]);
  expect(() => index.searchSync([1, 2])).toThrow(expect.objectContaining({ code: 'ERR_DISPOSED' }));
});

describe('bad input', () => {
  let index: FlatIndex<string>;
  const gone = new Float32Array(2);
  beforeAll(async () => {
    index = await FlatIndex.from(['a', 'b', 'c'], new Float32Array(6));
    structuredClone(gone.buffer, { transfer: [gone.buffer] });
  });
  const two = Float32Array.of(1, 2);
  const cases: [string, string, RegExp, () => unknown][] = [
    ['k of 0', 'ERR_RANGE', /^k: expected 1 to 3/, () => index.searchSync(two, { k: 0 })],
    ['k over the size', 'ERR_RANGE', /^k: .* 4/, () => index.searchSync(two, { k: 4 })],
    ['k that is no integer', 'ERR_ARGUMENT', /^k: /, () => index.searchSync(two, { k: 1.5 })],
    ['a query too short', 'ERR_SHAPE', /^query: expected 2 numbers but received 1/, () => index.searchSync([1])],
    ['a ragged batch', 'ERR_SHAPE', /^queries\[1\]: /, () => index.searchSync([two, Float32Array.of(1)])],
    ['a detached query', 'ERR_SHAPE', /^query: .* received 0/, () => index.searchSync(gone)],
    ['NaN', 'ERR_VALUE', /^queries: .*nan/i, () => index.searchSync(Float32Array.of(1, Number.NaN))],
    ['infinity', 'ERR_VALUE', /^queries: /, () => index.searchSync([1, Number.POSITIVE_INFINITY])],
    ['text', 'ERR_ARGUMENT', /^query: /, () => index.searchSync('ab' as never)],
    [
      'a filter in the wrong place',
      'ERR_ARGUMENT',
      /^options.deny: no such option; known are k, filter/,
      () => index.searchSync(two, { deny: ['a'] } as never),
    ],
    ['text among numbers', 'ERR_ARGUMENT', /^query: .* '2'/, () => index.searchSync([1, '2' as never])],
    [
      'deny of another type',
      'ERR_ARGUMENT',
      /^deny: /,
      () => index.searchSync(two, { filter: { deny: [1 as never] } }),
    ],
    ['a tensor of another width', 'ERR_SHAPE', /^queries: /, () => index.searchSync(tensor([[1, 2, 3]]))],
    ['no ids', 'ERR_VALUE', /^ids: /, () => FlatIndex.from([], new Float32Array())],
    ['an id twice', 'ERR_VALUE', /^ids: 'a' comes twice/, () => FlatIndex.from(['a', 'a'], two)],
    ['ids of two types', 'ERR_ARGUMENT', /^ids\[1\]: /, () => FlatIndex.from(['a', 1], two)],
    ['vectors that do not divide', 'ERR_SHAPE', /^vectors: /, () => FlatIndex.from(['a', 'b', 'c'], two)],
    [
      'vectors that are not finite',
      'ERR_VALUE',
      /^vectors: .*row 1/,
      () => FlatIndex.from([1, 2], Float32Array.of(1, Number.NaN)),
    ],
    [
      'integer tensors',
      'ERR_DTYPE',
      /^vectors: /,
      () => FlatIndex.from([1], tensor([[1]], { dtype: 'int32' }) as never),
    ],
    ['an unknown metric', 'ERR_ARGUMENT', /^metric: /, () => FlatIndex.from([1, 2], two, { metric: 'dot' as never })],
    [
      'a misspelt option',
      'ERR_ARGUMENT',
      /^options.metrc: /,
      () => FlatIndex.from([1, 2], two, { metrc: 'l2' } as never),
    ],
  ];
  it.each(cases)('refuses %s', async (_, code, message, call) => {
    const error = await (async () => call())().then(
      () => undefined,
      (e) => e,
    );
    expect(error).toMatchObject({ name: 'TopknotError', code, message: expect.stringMatching(message) });
  });

  it('stops at once for an aborted signal', async () => {
    const signal = AbortSignal.abort(new Error('enough'));
    await expect(index.search(two, { signal })).rejects.toThrow('enough');
    await expect(FlatIndex.from([1, 2], two, { signal })).rejects.toThrow('enough');
  });
});
