import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import {
  BiasedMF,
  type BiasedMFOptions,
  CsrMatrix,
  evaluate,
  type History,
  type Interactions,
} from '../../lib/index.js';
import {
  explainRating,
  objective,
  type Parameters,
  predict,
  type Rating,
  type Side,
  sgdEpoch,
  solveRatings,
  visitingOrder,
} from '../reference/ratings.js';
import { interactionsOf, modelSuite, triplets } from './suite.js';

const small = { factors: 5, iterations: 4 } as const;
modelSuite(
  'biased-mf',
  () => new BiasedMF({ ...small, learningRate: 0.02 }),
  (path, options) => BiasedMF.load(path, options),
);
modelSuite(
  'biased-mf-als',
  () => new BiasedMF({ ...small, solver: 'als' }),
  (path, options) => BiasedMF.load(path, options),
);
modelSuite(
  'biased-mf-baseline',
  () => new BiasedMF({ ...small, factors: 0 }),
  (path, options) => BiasedMF.load(path, options),
);

const dir = mkdtempSync(join(tmpdir(), 'topknot-ratings-'));
afterAll(() => rmSync(dir, { recursive: true }));

/** Ratings by row number, as a matrix, whose ids then are these numbers. */
const ratings: Rating[] = triplets(25, 30)
  .map(([u, i, r]) => [Number(u), Number(i), r] as const)
  .sort((a, b) => a[0] - b[0] || a[1] - b[1]);
const matrix = await CsrMatrix.fromCoo(
  Int32Array.from(ratings, (r) => r[0]),
  Int32Array.from(ratings, (r) => r[1]),
  Float32Array.from(ratings, (r) => r[2]),
  { shape: [25, 30] },
);

/** The parameters of a fitted model. */
async function parametersOf(model: BiasedMF): Promise<Parameters> {
  const side = async (vectors: typeof model.userFactors, biases: typeof model.userFactors, less: number) => {
    const [flat, bias] = [await vectors.data(), await biases.data()];
    const f = vectors.shape[1]!;
    return Array.from(bias, (b, r): Side => ({ vector: [...flat.subarray(r * f, (r + 1) * f)], bias: b - less }));
  };
  return {
    mean: model.mean,
    users: await side(model.userFactors, model.userBiases, 0),
    items: await side(model.itemFactors, model.itemBiases, model.mean),
  };
}

function largestDifference(a: Parameters, b: Parameters): number {
  const flat = (p: Parameters) => [...p.users, ...p.items].flatMap(({ vector, bias }) => [...vector, bias]);
  const other = flat(b);
  return Math.max(...flat(a).map((x, k) => Math.abs(x - other[k]!)));
}

describe('against the float64 reference', () => {
  it.each([0, 3, 16])('an epoch visits the ratings in the documented order, %i factors', async (factors) => {
    const options = { factors, iterations: 1, learningRate: 0.03, regularization: 0.05, seed: 7 };
    const model = await new BiasedMF(options).fit(matrix);
    const expected = await parametersOf(model);
    sgdEpoch(expected, visitingOrder(ratings, 7, 1), 0.03, 0.05);
    await model.fit(matrix, { warmStart: true });
    const got = await parametersOf(model);
    expect(largestDifference(got, expected)).toBeLessThan(2e-6);
    for (const [u, i] of ratings.slice(0, 20)) expect(await model.score(u, i)).toBeCloseTo(predict(got, u, i), 5);
  });

  it('three epochs, each in another order, with a falling rate', async () => {
    const options = { factors: 4, learningRate: 0.03, learningRateDecay: 0.5, seed: 1 };
    const model = await new BiasedMF({ ...options, iterations: 1 }).fit(matrix);
    await model.save(join(dir, 'one'));
    // The same options but for the epochs, from the same start.
    const longer = await BiasedMF.load<number, number>(join(dir, 'one'));
    const three = Object.assign(longer, { options: { ...longer.options, iterations: 3 } });
    const expected = await parametersOf(model);
    for (const epoch of [0, 1, 2])
      sgdEpoch(expected, visitingOrder(ratings, 1, epoch + 1), 0.03 * 0.5 ** epoch, three.options.regularization);
    await three.fit(matrix, { warmStart: true });
    expect(largestDifference(await parametersOf(three), expected)).toBeLessThan(3e-6);
  });

  it.each([0, 1, 6, 20])(
    'least squares solves the normal equations of vector and bias, %i factors',
    async (factors) => {
      const model = await new BiasedMF({ factors, solver: 'als', iterations: 3, regularization: 0.07 }).fit(matrix);
      const p = await parametersOf(model);
      p.users.forEach((user, u) => {
        const own = ratings.filter((r) => r[0] === u).map(([, i, r]) => [i, r - p.mean] as const);
        const { vector, bias } = solveRatings(own, p.items, 0.07);
        for (const [k, x] of [...vector, bias].entries()) expect([...user.vector, user.bias][k]).toBeCloseTo(x, 4);
      });
      const again = await parametersOf(await new BiasedMF({ ...model.options, iterations: 4 }).fit(matrix));
      const own = ratings.filter((r) => r[1] === 2).map(([u, , r]) => [u, r - p.mean] as const);
      expect(again.items[2]!.bias).toBeCloseTo(solveRatings(own, p.users, 0.07).bias, 4);
    },
  );

  it.each(['sgd', 'als'] as const)('reports the objective, which falls: %s', async (solver) => {
    const heard: number[] = [];
    const model = new BiasedMF({ factors: 6, solver, iterations: 6, learningRate: 0.01, computeLoss: true });
    await model.fit(matrix, { onProgress: (p) => p.loss !== undefined && heard.push(p.loss) });
    const exact = objective(await parametersOf(model), ratings, model.options.regularization);
    expect(model.loss.length).toBe(6);
    expect(Math.abs(model.loss.at(-1)! - exact) / exact).toBeLessThan(1e-5);
    for (let i = 1; i < 6; i++) expect(model.loss[i]!).toBeLessThan(model.loss[i - 1]!);
    for (const l of heard) expect(model.loss).toContain(l);
  });

  it('folds in by the normal equations; the last rating of an item counts, none is the mean', async () => {
    const model = await new BiasedMF({ factors: 4, solver: 'als', regularization: 0.2 }).fit(matrix);
    const p = await parametersOf(model);
    const { vector, bias } = solveRatings(
      [
        [3, 4 - p.mean],
        [5, 0],
      ],
      p.items,
      0.2,
    );
    const found = await model.foldIn([{ item: 3, weight: 1 }, 5, { item: 3, weight: 4 }]);
    expect(found.length).toBe(4);
    for (const [k, x] of vector.entries()) expect(found[k]).toBeCloseTo(x, 5);
    const score = (history: History<number>, i: number) => model.score({ history }, i);
    const dot = (a: ArrayLike<number>, b: readonly number[]) => b.reduce((sum, x, k) => sum + x * a[k]!, 0);
    const rest = ({ vector, bias }: Side) => p.mean + bias + dot(found, vector);
    const told = await score([{ item: 3, weight: 1 }, 5, { item: 3, weight: 4 }], 7);
    expect(told - rest(p.items[7]!)).toBeCloseTo(bias, 5);
    // Least squares ends with the users, so a user's own row is their fold-in.
    const history = ratings.filter((r) => r[0] === 8).map(([, item, weight]) => ({ item, weight }));
    const own = await model.foldIn(history);
    for (const [k, x] of p.users[8]!.vector.entries()) expect(own[k]).toBeCloseTo(x, 5);
    expect(await score(history, 2)).toBeCloseTo(await model.score(8, 2), 5);
    const visitor = await model.recommend({ history }, { k: 4 });
    expect(visitor.map((r) => r.item)).toEqual((await model.recommend(8, { k: 4 })).map((r) => r.item));
  });
});

describe('explain and partialFit, against the float64 reference', () => {
  it.each([0, 1, 4, 20])('explains a prediction by the ratings, %i factors', async (factors) => {
    for (const solver of ['sgd', 'als'] as const) {
      const model = await new BiasedMF({ factors, solver, iterations: 5, regularization: 0.3 }).fit(matrix);
      const p = await parametersOf(model);
      const own = ratings.filter((r) => r[0] === 8).map(([, item, r]) => [item, r] as const);
      const history = own.map(([item, weight]) => ({ item, weight }));
      for (const target of [2, 17, own[0]![0]]) {
        const expected = explainRating(p, own, target, 0.3);
        const why = await model.explain({ history }, target, { k: 1000 });
        const given = new Map(why.contributions.map((c) => [c.item, c.contribution]));
        for (const [n, [item]] of own.entries()) expect(given.get(item)).toBeCloseTo(expected[n]!, 5);
        expect(why.baseline).toBeCloseTo(p.mean + p.items[target]!.bias, 5);
        expect(await model.explain(8, target, { k: 1000 })).toEqual(why);
        // Least squares ends with the users: then it is the very score of the fit.
        if (solver === 'als') expect(why.score).toBeCloseTo(await model.score(8, target), 4);
      }
    }
  });

  it('solves the users and the items that are named, exactly, and the users once more', async () => {
    const model = await new BiasedMF({ factors: 3, solver: 'als', iterations: 5, regularization: 0.2 }).fit(matrix);
    const before = await parametersOf(model);
    const more: Rating[] = [
      [4, 30, 3],
      [7, 30, 2],
      [25, 30, 5],
      [25, 2, 1],
    ];
    const shape = [26, 31] as const;
    const column = (at: 0 | 1) => Int32Array.from(more, (r) => r[at]);
    const rows = Float32Array.from(more, (r) => r[2]);
    await model.partialFit(await CsrMatrix.fromCoo(column(0), column(1), rows, { shape }));
    const after = await parametersOf(model);
    expect(after.mean).toBe(before.mean);
    const merged = [...ratings.filter(([u, i]) => !more.some((m) => m[0] === u && m[1] === i)), ...more];
    const solved = (at: 0 | 1, row: number, other: Side[]) =>
      solveRatings(
        merged.filter((r) => r[at] === row).map((r) => [r[at ? 0 : 1], r[2] - before.mean] as const),
        other,
        0.2,
      );
    const grow = (side: Side[]) => [...side, { vector: [0, 0, 0], bias: 0 }];
    const touch = (users: Side[], items: Side[]) =>
      users.map((row, u) => (more.some((m) => m[0] === u) ? solved(0, u, items) : row));
    const first = touch(grow(before.users), grow(before.items));
    const items = grow(before.items).map((row, i) => (more.some((m) => m[1] === i) ? solved(1, i, first) : row));
    const users = touch(first, items);
    expect(largestDifference(after, { mean: before.mean, users, items })).toBeLessThan(1e-4);
  });

  it('predicts μ and the bias of the other side for what update leaves out', async () => {
    const model = await new BiasedMF({ factors: 3 }).fit(matrix);
    const one = await CsrMatrix.fromCoo(Int32Array.of(25), Int32Array.of(30), Float32Array.of(5), { shape: [26, 31] });
    await model.partialFit(one, { update: 'items' });
    const [items] = [await model.itemBiases.data()];
    expect(await model.score(25, 4)).toBeCloseTo(items[4]!, 6);
    const other = await new BiasedMF({ factors: 3 }).fit(matrix);
    await other.partialFit(one, { update: 'users' });
    const users = await other.userBiases.data();
    expect(await other.score(9, 30)).toBeCloseTo(other.mean + users[9]!, 5);
  });
});

/** Ratings of a world of two tastes: u + i even is liked. */
const world = Array.from({ length: 60 * 40 }, (_, n) => [n % 60, Math.floor(n / 60)] as const)
  .filter(([u, i]) => (u * 7 + i * 11) % 5 < 3)
  .map(([u, i]) => [u, i, 3 + ((u + i) % 2 ? -1.5 : 1.5) + (i % 3) * 0.2] as const);

describe.each([
  ['sgd', { learningRate: 0.05, regularization: 0.01, iterations: 40, initStd: 0.3 }],
  ['als', { regularization: 0.01, iterations: 10, initStd: 0.3 }],
] as const)('predicts: %s', (solver, options) => {
  it('ratings that it has not seen, better than the baseline', async () => {
    const [test, train] = [world.filter((_, n) => n % 7 === 0), world.filter((_, n) => n % 7 !== 0)];
    const of = (rows: typeof world) =>
      CsrMatrix.fromCoo(
        Int32Array.from(rows, (r) => r[0]),
        Int32Array.from(rows, (r) => r[1]),
        Float32Array.from(rows, (r) => r[2]),
        { shape: [60, 40] },
      );
    const data = { train: await of(train), test: await of(test) };
    const rmse = async (factors: number) => {
      const model = await new BiasedMF({ ...options, solver, factors }).fit(data.train);
      return (await evaluate(model, data, { metrics: ['rmse', 'mae'], clip: [1, 5] })).values.rmse!;
    };
    const baseline = await rmse(0);
    expect(baseline).toBeGreaterThan(1.3);
    expect(await rmse(2)).toBeLessThan(0.3 * baseline);
    const model = await new BiasedMF({ ...options, solver, factors: 2 }).fit(data.train);
    for (const { item } of await model.similarItems(4, { k: 10 })) expect(Number(item) % 2).toBe(0);
    for (const { user } of await model.similarUsers(5, { k: 10 })) expect(Number(user) % 2).toBe(1);
  });
});

describe('warm start', () => {
  it.each(['sgd', 'als'] as const)('goes on where the last fit ended, by id: %s', async (solver) => {
    const rows = triplets(30, 40);
    const options = { factors: 6, solver, learningRate: 0.02, computeLoss: true, iterations: 3 };
    const model = await new BiasedMF(options).fit(await interactionsOf(rows));
    const end = model.loss.at(-1)!;
    await model.fit(await interactionsOf(rows), { warmStart: true });
    expect(model.loss[0]!).toBeLessThan(end);
    await model.fit(await interactionsOf([...rows, [1000, 3, 1] as const].reverse()), { warmStart: true });
    expect(model.loss[0]!).toBeLessThan(end * 1.05);
    expect(Number.isFinite(await model.score(1000, 5))).toBe(true);
    await expect(new BiasedMF(options).fit(matrix, { warmStart: true })).rejects.toMatchObject({
      code: 'ERR_NOT_FITTED',
    });
  });
});

describe('what it knows nothing of', () => {
  it.each(['sgd', 'als'] as const)('gets the mean and the bias of the other side: %s', async (solver) => {
    const sparse = await CsrMatrix.fromCoo(Int32Array.of(0, 2), Int32Array.of(0, 1), Float32Array.of(5, 2), {
      shape: [3, 3],
    });
    const model = await new BiasedMF({ factors: 3, solver, iterations: 50 }).fit(sparse);
    expect(await model.score(1, 2)).toBeCloseTo(3.5, 6);
    const [items] = [await model.itemBiases.data()];
    expect(await model.score(1, 0)).toBeCloseTo(items[0]!, 6);
    expect(items[0]!).toBeGreaterThan(items[1]!);
  });
});

describe('refuses', () => {
  const bad: [BiasedMFOptions, string, RegExp][] = [
    [{ factors: -1 }, 'ERR_RANGE', /^factors: expected 0 to 4096 but received -1/],
    [{ learningRate: Number.NaN }, 'ERR_ARGUMENT', /^learningRate: .* NaN/],
    [{ learningRateDecay: -1 }, 'ERR_RANGE', /^learningRateDecay: /],
    [{ regularization: -0.1 }, 'ERR_RANGE', /^regularization: /],
    [{ iterations: 0 }, 'ERR_RANGE', /^iterations: /],
    [{ solver: 'adam' as never }, 'ERR_ARGUMENT', /^solver: expected 'sgd' or 'als' but received 'adam'/],
    [{ epochs: 5 } as never, 'ERR_ARGUMENT', /^options\.epochs: no such option/],
  ];
  it.each(bad)('options %j', (options, code, message) => {
    expect(() => new BiasedMF(options)).toThrow(
      expect.objectContaining({ code, message: expect.stringMatching(message) }),
    );
  });

  it('ratings that are no numbers', async () => {
    const coo = (value: number) =>
      CsrMatrix.fromCoo(Int32Array.of(0, 1), Int32Array.of(0, 1), Float32Array.of(1, value), { shape: [2, 2] });
    await expect(coo(Number.NaN)).rejects.toMatchObject({ code: 'ERR_VALUE' });
    await expect(coo(Number.POSITIVE_INFINITY)).rejects.toMatchObject({ code: 'ERR_VALUE' });
  });

  it.each([1.2, 1e30])('to go on when the descent diverges, and keeps the model that it has: rate %d', async (rate) => {
    const model = await new BiasedMF({ factors: 4, iterations: 2 }).fit(matrix);
    await model.save(join(dir, 'kept'));
    const kept = await BiasedMF.load<number, number>(join(dir, 'kept'));
    const before = await kept.recommend(3);
    const wild = Object.assign(kept, { options: { ...kept.options, learningRate: rate, iterations: 60 } });
    await expect(wild.fit(matrix)).rejects.toMatchObject({
      code: 'ERR_VALUE',
      message: expect.stringMatching(/learning ?rate/i),
    });
    expect(await wild.recommend(3)).toEqual(before);
  });

  it('to compare vectors that it does not have, and a clip that is no range', async () => {
    const model = await new BiasedMF({ factors: 0 }).fit(matrix);
    await expect(model.similarItems(1)).rejects.toMatchObject({ code: 'ERR_VALUE', message: /^factors: / });
    const data = { train: matrix, test: matrix };
    const clip = async (clip: never) => evaluate(model, data, { metrics: ['rmse'], clip });
    for (const wrong of [[5, 1], [1], 5, [1, Number.NaN]])
      await expect(clip(wrong as never)).rejects.toMatchObject({ code: 'ERR_ARGUMENT', message: /^clip: / });
  });
});

it('clips predictions for the rating errors alone', async () => {
  const model = await new BiasedMF({ factors: 0, iterations: 60 }).fit(matrix);
  const users = Int32Array.from(ratings, (r) => r[0]);
  const items = Int32Array.from(ratings, (r) => r[1]);
  const predicted = await model.scorePairs(users, items);
  const errors = (least: number, most: number) =>
    ratings.map(([, , r], n) => Math.abs(Math.min(Math.max(predicted[n]!, least), most) - r));
  const mean = (values: number[]) => values.reduce((a, b) => a + b, 0) / values.length;
  const data = { train: matrix, test: matrix };
  for (const clip of [undefined, [2, 3] as const]) {
    const { values } = await evaluate(model, data, { metrics: ['mae', 'rmse'], ...(clip && { clip }) });
    const expected = errors(...(clip ?? ([Number.NEGATIVE_INFINITY, Number.POSITIVE_INFINITY] as const)));
    expect(values.mae).toBeCloseTo(mean(expected), 6);
    expect(values.rmse).toBeCloseTo(Math.sqrt(mean(expected.map((e) => e * e))), 6);
  }
});

it('options travel with the model', async () => {
  const data: Interactions = await interactionsOf(triplets(20, 20));
  const model = await new BiasedMF({ factors: 3, solver: 'als', regularization: 0.3, seed: 9 }).fit(data);
  await model.save(join(dir, 'options'));
  const back = await BiasedMF.load(join(dir, 'options'));
  expect(back.options).toEqual(model.options);
  expect(back.mean).toBe(model.mean);
  expect(await back.foldIn([3, { item: 4, weight: 2 }])).toEqual(await model.foldIn([3, { item: 4, weight: 2 }]));
  expect(await back.similarItems(5)).toEqual(await model.similarItems(5));
});
