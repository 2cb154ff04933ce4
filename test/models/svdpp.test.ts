import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { CsrMatrix, readSafetensors, SVDpp, type SVDppOptions } from '../../lib/index.js';
import {
  explainRating,
  type Rating,
  type SvdppParameters,
  svdppBatches,
  svdppEpoch,
  svdppVector,
} from '../reference/ratings.js';
import { interactionsOf, modelSuite, triplets } from './suite.js';

const small = { factors: 5, iterations: 4 } as const;
modelSuite(
  'svdpp',
  () => new SVDpp(small),
  (path, options) => SVDpp.load(path, options),
);

const dir = mkdtempSync(join(tmpdir(), 'topknot-svdpp-'));
afterAll(() => rmSync(dir, { recursive: true }));

const [userCount, itemCount] = [150, 30];
const ratings: Rating[] = triplets(userCount, itemCount)
  .map(([u, i, r]) => [Number(u), Number(i), r] as const)
  .sort((a, b) => a[0] - b[0] || a[1] - b[1]);
const byUser = Array.from({ length: userCount }, (_, u) => ratings.filter((r) => r[0] === u));
const matrix = await CsrMatrix.fromCoo(
  Int32Array.from(ratings, (r) => r[0]),
  Int32Array.from(ratings, (r) => r[1]),
  Float32Array.from(ratings, (r) => r[2]),
  { shape: [userCount, itemCount] },
);

/** The parameters of a fitted model, from its file. */
async function parametersOf(model: SVDpp): Promise<SvdppParameters> {
  const path = join(dir, 'parameters');
  await model.save(path);
  const { tensors } = await readSafetensors(path);
  const f = model.options.factors;
  const table = async (name: string) => {
    const [flat, cols] = [(await tensors.get(name)!.data()) as Float32Array, tensors.get(name)!.shape[1]!];
    return Array.from({ length: flat.length / cols }, (_, r) => [...flat.subarray(r * cols, (r + 1) * cols)]);
  };
  const users = (await table('user_rows')).map((row) => ({ vector: row.slice(0, f), bias: row[f]! }));
  const items = (await table('item_rows')).map((row) => ({ vector: row.slice(0, f), bias: row[f + 1]! - model.mean }));
  return { mean: model.mean, users, items, implicit: await table('implicit') };
}

const flat = (p: SvdppParameters) => [
  ...[...p.users, ...p.items].flatMap((s) => [...s.vector, s.bias]),
  ...p.implicit.flat(),
];

describe('against the float64 reference', () => {
  it.each([1, 7, 16])('an epoch visits batches of users in the documented order, %i factors', async (factors) => {
    const model = await new SVDpp({ factors, iterations: 1, learningRate: 0.03, regularization: 0.02, seed: 5 }).fit(
      matrix,
    );
    const expected = await parametersOf(model);
    const [batches] = svdppBatches(byUser, 5, 1);
    expect(batches!.length).toBe(3);
    svdppEpoch(expected, byUser, batches!, 0.03, 0.02);
    await model.fit(matrix, { warmStart: true });
    const got = await parametersOf(model);
    const wanted = flat(expected);
    expect(Math.max(...flat(got).map((x, k) => Math.abs(x - wanted[k]!)))).toBeLessThan(5e-6);
    expect(Math.max(...got.implicit.flat().map(Math.abs))).toBeGreaterThan(1e-3);
    for (const u of [0, 77, 149]) {
      const own = byUser[u]!.map((r) => r[1]);
      const z = svdppVector(got, u, own);
      const { vector, bias } = got.items[3]!;
      const predicted = got.mean + got.users[u]!.bias + bias + z.reduce((s, zk, k) => s + zk * vector[k]!, 0);
      expect(await model.score(u, 3)).toBeCloseTo(predicted, 5);
    }
  });

  it('reports the objective, which falls', async () => {
    const model = await new SVDpp({ factors: 4, iterations: 6, regularization: 0.02, computeLoss: true }).fit(matrix);
    const p = await parametersOf(model);
    let exact = 0;
    const squares = (v: readonly number[]) => v.reduce((s, x) => s + x * x, 0);
    for (const [u, i, r] of ratings) {
      const z = svdppVector(
        p,
        u,
        byUser[u]!.map((own) => own[1]),
      );
      const { vector: q, bias } = p.items[i]!;
      exact += (r - p.mean - p.users[u]!.bias - bias - z.reduce((s, zk, k) => s + zk * q[k]!, 0)) ** 2;
      exact +=
        0.02 * (squares(p.users[u]!.vector) + p.users[u]!.bias ** 2 + squares(q) + bias ** 2 + squares(p.implicit[i]!));
    }
    expect(Math.abs(model.loss.at(-1)! - exact) / exact).toBeLessThan(1e-5);
    for (let i = 1; i < 6; i++) expect(model.loss[i]!).toBeLessThan(model.loss[i - 1]!);
  });
});

it('goes on where the last fit ended, by id, and learns on when loaded', async () => {
  const rows = triplets(30, 40);
  const model = await new SVDpp({ factors: 6, computeLoss: true, iterations: 3 }).fit(await interactionsOf(rows));
  const end = model.loss.at(-1)!;
  await model.save(join(dir, 'half'));
  const back = await SVDpp.load(join(dir, 'half'));
  await model.fit(await interactionsOf(rows), { warmStart: true });
  expect(model.loss[0]!).toBeLessThan(end);
  await back.fit(await interactionsOf(rows), { warmStart: true });
  expect(await back.recommend(3)).toEqual(await model.recommend(3));
  await model.fit(await interactionsOf([...rows, [1000, 3, 1] as const].reverse()), { warmStart: true });
  expect(model.loss[0]!).toBeLessThan(end * 1.05);
});

it('folds in with the vectors of the items that were rated', async () => {
  const model = await new SVDpp({ factors: 4, learningRate: 0.01, iterations: 20, regularization: 0.05 }).fit(matrix);
  const history = byUser[8]!.map(([, item, weight]) => ({ item, weight }));
  const list = (await model.recommend({ history }, { k: 5 })).map((r) => r.item);
  const own = (await model.recommend(8, { k: 5 })).map((r) => r.item);
  expect(list.filter((item) => own.includes(item)).length).toBeGreaterThanOrEqual(3);
});

it('explains a prediction by the ratings and by what was rated', async () => {
  const model = await new SVDpp({ factors: 4, learningRate: 0.02, iterations: 30, regularization: 0.1 }).fit(matrix);
  const p = await parametersOf(model);
  const own = byUser[8]!.map(([, item, r]) => [item, r] as const);
  const history = own.map(([item, weight]) => ({ item, weight }));
  for (const target of [2, 17, own[0]![0]]) {
    const expected = explainRating(p, own, target, 0.1);
    const plain = explainRating({ ...p, implicit: p.implicit.map((y) => y.map(() => 0)) }, own, target, 0.1);
    expect(Math.max(...expected.map((x, n) => Math.abs(x - plain[n]!)))).toBeGreaterThan(1e-3);
    const why = await model.explain({ history }, target, { k: 1000 });
    const given = new Map(why.contributions.map((c) => [c.item, c.contribution]));
    for (const [n, [item]] of own.entries()) expect(given.get(item)).toBeCloseTo(expected[n]!, 5);
  }
});

it('partialFit leaves what the choice of an item tells as it is', async () => {
  const model = await new SVDpp({ factors: 4, learningRate: 0.02, iterations: 10 }).fit(matrix);
  const before = await parametersOf(model);
  const shape = [userCount + 1, itemCount + 1] as const;
  const [users, items] = [Int32Array.of(3, userCount, userCount), Int32Array.of(itemCount, itemCount, 5)];
  await model.partialFit(await CsrMatrix.fromCoo(users, items, Float32Array.of(2, 4, 1), { shape }));
  const after = await parametersOf(model);
  expect(after.implicit).toEqual([...before.implicit, [0, 0, 0, 0]]);
  // The item is solved with the whole vectors of its users, as they were after the first of the two solutions.
  const own = [itemCount, 5].map((item) => ({ item, weight: item === 5 ? 1 : 4 }));
  const vector = await model.foldIn(own);
  const whole = await model.userFactors.data();
  for (const [k, x] of vector.entries()) expect(whole[userCount * 4 + k]).toBeCloseTo(x, 5);
});

const bad: [SVDppOptions, string, RegExp][] = [
  [{ factors: 0 }, 'ERR_RANGE', /^factors: expected 1 to 4096 but received 0/],
  [{ learningRate: Number.NaN }, 'ERR_ARGUMENT', /^learningRate: .* NaN/],
  [{ iterations: 0 }, 'ERR_RANGE', /^iterations: /],
  [{ solver: 'als' } as never, 'ERR_ARGUMENT', /^options\.solver: no such option/],
];
it.each(bad)('refuses options %j', (options, code, message) => {
  expect(() => new SVDpp(options)).toThrow(expect.objectContaining({ code, message: expect.stringMatching(message) }));
});

it('refuses to go on when the descent diverges', async () => {
  await expect(new SVDpp({ factors: 4, learningRate: 5, iterations: 60 }).fit(matrix)).rejects.toMatchObject({
    code: 'ERR_VALUE',
    message: expect.stringMatching(/learning ?rate/i),
  });
});
