import { beforeAll, describe, expect, it } from 'vitest';
import { CsrMatrix, LogisticMF, type LogisticMFOptions, type Tensor } from '../../lib/index.js';
import { foldIn, gradient, logisticMf, objective, type ReferenceOptions, score } from '../reference/logistic-mf.js';
import { interactionsOf, modelSuite, numbers, triplets } from './suite.js';

const small = { factors: 8, iterations: 3, negatives: 4, learningRate: 0.1 } as const;
modelSuite(
  'logistic-mf',
  () => new LogisticMF(small),
  (path, options) => LogisticMF.load(path, options),
);

async function nested(t: Tensor): Promise<number[][]> {
  const flat = Array.from((await t.data()) as Float32Array);
  const cols = t.shape[1]!;
  return Array.from({ length: t.shape[0]! }, (_, r) => flat.slice(r * cols, (r + 1) * cols));
}

/** The largest difference, against the largest value. */
function difference(a: readonly number[], b: readonly number[]): number {
  return Math.max(...a.map((v, i) => Math.abs(v - b[i]!))) / Math.max(...b.map(Math.abs));
}

describe('against the float64 reference', () => {
  const next = numbers(4);
  // A user and an item without interactions among them.
  const values = Array.from({ length: 25 }, (_, u) =>
    Array.from({ length: 33 }, (_, i) => (u !== 3 && i !== 5 && next() < 0.25 ? 1 + Math.floor(next() * 3) : 0)),
  );
  const cells = values.flatMap((row, u) => row.flatMap((v, i) => (v ? [[u, i, v] as const] : [])));

  let matrix: CsrMatrix;
  beforeAll(async () => {
    matrix = await CsrMatrix.fromCoo(
      Int32Array.from(cells, (c) => c[0]),
      Int32Array.from(cells, (c) => c[1]),
      Float32Array.from(cells, (c) => c[2]),
      { shape: [25, 33] },
    );
  });

  it('sweeps are those of the documented order', async () => {
    const options = { factors: 5, iterations: 3, negatives: 2, learningRate: 0.3, alpha: 2, initStd: 0.5, seed: 9 };
    const model = await new LogisticMF(options).fit(matrix);
    const { x, y } = logisticMf(values, model.options as ReferenceOptions);
    for (const [factors, biases, rows] of [
      [model.userFactors, model.userBiases, x],
      [model.itemFactors, model.itemBiases, y],
    ] as const) {
      expect(
        difference(
          (await nested(factors)).flat(),
          rows.flatMap((row) => row.slice(0, -1)),
        ),
      ).toBeLessThan(1e-4);
      expect(
        difference(
          Array.from(await biases.data()),
          rows.map((row) => row.at(-1)!),
        ),
      ).toBeLessThan(1e-4);
    }
    expect((await nested(model.userFactors))[3]).toEqual([0, 0, 0, 0, 0]);
    const pairs = await model.scorePairs(Int32Array.of(7), Int32Array.of(8));
    expect(pairs[0]).toBeCloseTo(score(x[7]!, y[8]!), 4);
  });

  it('folds in and explains as documented', async () => {
    const options = { factors: 5, iterations: 12, negatives: 3, learningRate: 0.2, regularization: 0.7, alpha: 2 };
    const model = await new LogisticMF(options).fit(matrix);
    const [y, biases] = [await nested(model.itemFactors), await model.itemBiases.data()];
    const others = y.map((row, i) => [...row, biases[i]!]);
    const own = [
      [2, 1],
      [9, 3],
      [20, 1],
      [31, 2],
    ] as const;
    // The bias of the other side takes no part in the sum of what was learned.
    const parts = foldIn(own, others, model.options as ReferenceOptions);
    const history = own.map(([item, weight]) => ({ item, weight }));
    const row = parts[0]!.map((_, k) => parts.reduce((sum, part) => sum + part[k]!, 0));
    expect(difference([...(await model.foldIn(history))], row.slice(0, -1))).toBeLessThan(1e-4);
    for (const target of [0, 9, 30]) {
      const why = await model.explain({ history }, target, { k: 100 });
      expect(why.baseline).toBeCloseTo(biases[target]!, 6);
      const given = new Map(why.contributions.map((c) => [c.item, c.contribution]));
      for (const [n, [item]] of own.entries())
        expect(given.get(item)).toBeCloseTo(score(parts[n]!, [...y[target]!, 0]), 3);
      expect(why.score).toBeCloseTo(score(row, others[target]!), 3);
    }
  });

  it('solves items as it folds users in', async () => {
    const options = { factors: 4, iterations: 10, negatives: 2, learningRate: 0.2, regularization: 0.5 };
    const model = await new LogisticMF(options).fit(matrix);
    const [x, biases] = [await nested(model.userFactors), await model.userBiases.data()];
    const one = await CsrMatrix.fromCoo(Int32Array.of(1, 8), Int32Array.of(33, 33), undefined, { shape: [25, 34] });
    await model.partialFit(one, { update: 'items' });
    const others = x.map((row, u) => [...row, biases[u]!]);
    const own = [
      [1, 1],
      [8, 1],
    ] as const;
    const parts = foldIn(own, others, model.options as ReferenceOptions);
    const row = parts[0]!.map((_, k) => parts[0]![k]! + parts[1]![k]!);
    expect(difference((await nested(model.itemFactors))[33]!, row.slice(0, -1))).toBeLessThan(1e-4);
    expect((await model.itemBiases.data())[33]).toBeCloseTo(row.at(-1)!, 4);
  });

  it('the gradient is that of the objective, by central differences', () => {
    const random = () => Array.from({ length: 6 }, () => next() - 0.5);
    const row = random();
    const terms = [0, 0, 1, 2.5].map((weight) => ({ other: random(), weight }));
    const h = 1e-5;
    const numeric = row.map((_, k) => {
      const at = (by: number) =>
        objective(
          row.map((v, n) => (n === k ? v + by : v)),
          terms,
          0.7,
        );
      return (at(h) - at(-h)) / (2 * h);
    });
    expect(difference(gradient(row, terms, 0.7), numeric)).toBeLessThan(1e-8);
  });
});

/** Two tastes: users like items of their own parity. */
const next = numbers(1);
const tastes = Array.from({ length: 60 }, (_, u) => {
  const own = new Set(Array.from({ length: 16 }, () => 2 * Math.floor(next() * 30) + (u % 2)));
  return [...own].map((i) => [`u${u}`, `i${i}`, 1] as const);
}).flat();
const parity = (id: unknown) => Number(String(id).slice(1)) % 2;

describe('taste', () => {
  let model: LogisticMF;
  beforeAll(async () => {
    model = await new LogisticMF({ factors: 4, learningRate: 0.5, negatives: 5 }).fit(await interactionsOf(tastes));
  });

  it('recommends by it', async () => {
    for (const user of ['u0', 'u1', 'u20', 'u41'])
      for (const { item } of await model.recommend(user, { k: 8 })) expect(parity(item)).toBe(parity(user));
    for (const { item } of await model.similarItems('i4', { k: 6 })) expect(parity(item)).toBe(0);
    for (const { user } of await model.similarUsers('u3', { k: 5 })) expect(parity(user)).toBe(1);
  });

  it('folds a history in', async () => {
    const history = ['i1', 'i7', 'i21'];
    expect((await model.foldIn(history)).length).toBe(4);
    expect([...(await model.foldIn(history))]).toEqual([...(await model.foldIn(history))]);
    for (const { item } of await model.recommend({ history }, { k: 8 })) expect(parity(item)).toBe(1);
    await expect(model.foldIn([])).rejects.toMatchObject({ code: 'ERR_VALUE' });
  });

  it('goes on from a warm start, by id', async () => {
    const rows = [...tastes, ['new', 'i3', 1] as const].reverse();
    const more = await new LogisticMF({ factors: 4, iterations: 1, learningRate: 0.01 }).fit(
      await interactionsOf(tastes),
    );
    await expect(new LogisticMF(small).fit(await interactionsOf(tastes), { warmStart: true })).rejects.toMatchObject({
      code: 'ERR_NOT_FITTED',
    });
    const before = (await nested(more.userFactors))[more.users.indexOf('u5')]!;
    await more.fit(await interactionsOf(rows), { warmStart: true });
    const after = (await nested(more.userFactors))[more.users.indexOf('u5')]!;
    // One sweep of Adagrad from new sums moves every number by at most its rate.
    for (const [k, v] of after.entries()) expect(Math.abs(v - before[k]!)).toBeLessThan(0.0101);
    expect(more.users.indexOf('new')).toBeGreaterThanOrEqual(0);
  });
});

describe('options', () => {
  const bad: [LogisticMFOptions, string, RegExp][] = [
    [{ factors: 0 }, 'ERR_RANGE', /^factors: expected 1 to 4096 but received 0/],
    [{ iterations: 0 }, 'ERR_RANGE', /^iterations: /],
    [{ learningRate: Number.NaN }, 'ERR_ARGUMENT', /^learningRate: .* NaN/],
    [{ regularization: -1 }, 'ERR_RANGE', /^regularization: /],
    [{ alpha: -1 }, 'ERR_RANGE', /^alpha: /],
    [{ negatives: 1.5 }, 'ERR_ARGUMENT', /^negatives: /],
    [{ seed: -1 }, 'ERR_RANGE', /^seed: /],
    [{ negative: 3 } as never, 'ERR_ARGUMENT', /^options\.negative: no such option/],
  ];
  it.each(bad)('refuses %j', (options, code, message) => {
    expect(() => new LogisticMF(options)).toThrow(
      expect.objectContaining({ code, message: expect.stringMatching(message) }),
    );
  });

  it('depend on the seed', async () => {
    const data = await interactionsOf(triplets(30, 40));
    const [a, b] = [
      await new LogisticMF({ ...small, seed: 1 }).fit(data),
      await new LogisticMF({ ...small, seed: 2 }).fit(data),
    ];
    expect(await nested(a.itemFactors)).not.toEqual(await nested(b.itemFactors));
  });
});
