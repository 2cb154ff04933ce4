import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { BPR, type BPROptions, CsrMatrix, setThreads, type Tensor, threads } from '../../lib/index.js';
import { bpr, type Fitted, foldIn, itemRow, objective, parts, type ReferenceOptions } from '../reference/bpr.js';
import { interactionsOf, modelSuite, numbers, triplets } from './suite.js';

const small = { factors: 8, iterations: 5 } as const;
const kinds: [string, BPROptions][] = [
  ['bpr', { computeLoss: true }],
  ['bpr-popularity', { negativeSampling: 'popularity', biases: true }],
  ['bpr-hard', { negativeSampling: 'hard', candidates: 3 }],
];
for (const [name, options] of kinds)
  modelSuite(
    name,
    () => new BPR({ ...small, ...options }),
    (path, options) => BPR.load(path, options),
    { needsHistory: !options.biases },
  );

async function nested(t: Tensor): Promise<number[][]> {
  const flat = Array.from((await t.data()) as Float32Array);
  const cols = t.shape[1]!;
  return Array.from({ length: t.shape[0]! }, (_, r) => flat.slice(r * cols, (r + 1) * cols));
}

/** Items of each user: the rarer, the larger the number; users without any among them. */
function randomRows(users: number, items: number, most: number, seed: number): number[][] {
  const next = numbers(seed);
  return Array.from({ length: users }, (_, u) => {
    const count = u % 37 === 36 ? 0 : 1 + Math.floor(next() * most);
    const own = new Set(Array.from({ length: count }, () => Math.floor(next() ** 1.5 * items)));
    return [...own].sort((a, b) => a - b);
  });
}

const matrixOf = (rows: readonly (readonly number[])[], items: number): Promise<CsrMatrix> =>
  CsrMatrix.from({
    indptr: BigInt64Array.from([0, ...rows.map((_, u) => rows.slice(0, u + 1).flat().length)].map(BigInt)),
    indices: Int32Array.from(rows.flat()),
    values: new Float32Array(rows.flat().length).fill(1),
    cols: items,
  });

/** The largest difference, against the largest value. */
function difference(a: readonly number[], b: readonly number[]): number {
  return Math.max(...a.map((v, i) => Math.abs(v - b[i]!))) / Math.max(...b.map(Math.abs));
}

describe('against the float64 reference', () => {
  const sizes = { 'one part': [50, 90, 14], 'several parts': [170, 1100, 130] } as const;
  const samplings: BPROptions[] = [
    { negativeSampling: 'uniform' },
    { negativeSampling: 'popularity', biases: true },
    { negativeSampling: 'hard', candidates: 3, biases: true },
  ];
  it.each(Object.entries(sizes))(
    'two epochs are those of the documented order: %s',
    async (name, [users, items, most]) => {
      const rows = randomRows(users, items, most, 5);
      expect(parts(users, items, rows.flat().length)).toBe(name === 'one part' ? 1 : 2);
      for (const sampling of samplings) {
        const model = new BPR({
          ...sampling,
          factors: 5,
          iterations: 2,
          learningRate: 0.2,
          regularization: 0.02,
          initStd: 0.5,
          seed: 7,
          computeLoss: true,
        });
        await model.fit(await matrixOf(rows, items));
        const { x, y, b, loss } = bpr(rows, items, model.options as ReferenceOptions);
        expect(difference((await nested(model.userFactors)).flat(), x.flat())).toBeLessThan(1e-5);
        expect(difference((await nested(model.itemFactors)).flat(), y.flat())).toBeLessThan(1e-5);
        expect(difference(model.loss as number[], loss)).toBeLessThan(1e-6);
        if (!sampling.biases) expect(model.itemBiases).toBeUndefined();
        else expect(difference(Array.from(await model.itemBiases!.data()), b)).toBeLessThan(1e-5);
      }
    },
  );

  it('a step is the gradient of its objective, by central differences', async () => {
    // One user with one of two items: an epoch is one sample, and the negative is the other item.
    const options = { factors: 3, iterations: 1, learningRate: 0.01, regularization: 0.3, biases: true, initStd: 1 };
    const model = new BPR(options);
    const all = async () => [
      ...(await nested(model.userFactors)).flat(),
      ...(await nested(model.itemFactors)).flat(),
      ...(await model.itemBiases!.data()),
    ];
    await model.fit(await matrixOf([[0]], 2));
    const before = await all();
    await model.fit(await matrixOf([[0]], 2), { warmStart: true });
    const after = await all();
    const at = (p: number[]) => objective(p.slice(0, 3), p.slice(3, 6), p.slice(6, 9), p[9]!, p[10]!, 0.3);
    const h = 1e-5;
    const gradient = before.map((_, k) => {
      const moved = (by: number) => at(before.map((v, n) => (n === k ? v + by : v)));
      return (moved(h) - moved(-h)) / (2 * h);
    });
    const step = after.map((v, k) => (v - before[k]!) / options.learningRate);
    expect(difference(step, gradient)).toBeLessThan(1e-4);
  });
});

describe.each(kinds)('explain and partialFit, against the float64 reference: %s', (_, sampling) => {
  const rows = randomRows(50, 90, 14, 5);
  const options = { ...sampling, factors: 5, iterations: 12, learningRate: 0.1, regularization: 0.05, initStd: 0.5 };
  const fitOf = async (model: BPR): Promise<Fitted> => ({
    owned: rows,
    x: await nested(model.userFactors),
    y: await nested(model.itemFactors),
    b: model.itemBiases ? [...(await model.itemBiases.data())] : new Array(90).fill(0),
  });

  it('folds in and explains as documented', async () => {
    const model = await new BPR(options).fit(await matrixOf(rows, 90));
    const fit = await fitOf(model);
    const own = [1, 8, 20, 77];
    const parts = foldIn(own, fit, model.options as ReferenceOptions);
    const vector = parts[0]!.map((_, k) => parts.reduce((sum, part) => sum + part[k]!, 0));
    expect(difference([...(await model.foldIn(own))], vector)).toBeLessThan(1e-5);
    for (const target of [0, 8, 60]) {
      const why = await model.explain({ history: own }, target, { k: 100 });
      expect(why.baseline).toBeCloseTo(fit.b[target]!, 6);
      const given = new Map(why.contributions.map((c) => [c.item, c.contribution]));
      for (const [n, item] of own.entries())
        expect(given.get(item)).toBeCloseTo(
          parts[n]!.reduce((sum, v, k) => sum + v * fit.y[target]![k]!, 0),
          5,
        );
    }
  });

  it('solves the items that are named with all else as it is', async () => {
    const model = await new BPR(options).fit(await matrixOf(rows, 90));
    const fit = await fitOf(model);
    const [users, items] = [Int32Array.of(3, 7, 11, 2), Int32Array.of(90, 90, 90, 4)];
    const merged = rows.map((own, u) => {
      const added = [...items].filter((_, n) => users[n] === u);
      return [...new Set([...own, ...added])].sort((a, b) => a - b);
    });
    await model.partialFit(await CsrMatrix.fromCoo(users, items, undefined, { shape: [50, 91] }), { update: 'items' });
    const grown = { ...fit, owned: merged, y: [...fit.y, new Array(5).fill(0)], b: [...fit.b, 0] };
    const after = await nested(model.itemFactors);
    for (const item of [90, 4]) {
      const own = merged.flatMap((list, u) => (list.includes(item) ? [u] : []));
      const [y, b] = itemRow(item, own, grown, model.options as ReferenceOptions);
      expect(difference(after[item]!, y)).toBeLessThan(1e-4);
      if (model.itemBiases) expect((await model.itemBiases.data())[item]).toBeCloseTo(b, 4);
    }
  });
});

describe('on data of several parts', () => {
  const rows = randomRows(400, 1700, 130, 11);
  let data: CsrMatrix;
  beforeAll(async () => {
    data = await matrixOf(rows, 1700);
    expect(parts(400, 1700, data.nnz)).toBe(3);
  });

  it.each(kinds)('the same bytes at any thread count: %s', async (_, options) => {
    const before = threads();
    const runs: Buffer[] = [];
    try {
      for (const count of [1, 2, 4]) {
        setThreads(count);
        const { userFactors, itemFactors } = await new BPR({ ...small, ...options }).fit(data);
        const parts = [await userFactors.data(), await itemFactors.data()];
        runs.push(Buffer.concat(parts.map((part) => Buffer.from(part.buffer as ArrayBuffer))));
      }
    } finally {
      setThreads(before);
    }
    expect(runs[1]!.equals(runs[0]!)).toBe(true);
    expect(runs[2]!.equals(runs[0]!)).toBe(true);
  });

  it.each([
    ...kinds,
    ['hogwild', { hogwild: true }],
    ['hogwild-hard', { hogwild: true, negativeSampling: 'hard', candidates: 2 }],
  ] as [string, BPROptions][])('learns: %s', async (_, options) => {
    const model = new BPR({ factors: 16, iterations: 20, learningRate: 0.1, ...options, computeLoss: true });
    await model.fit(data);
    expect(model.loss.length).toBe(20);
    // Hard negatives grow harder, so that their loss need not fall.
    if (options.negativeSampling !== 'hard') expect(model.loss.at(-1)!).toBeLessThan(0.8 * model.loss[0]!);
    const next = numbers(3);
    const pairs = rows.flatMap((own, u) => own.map((i) => [u, i, Math.floor(next() * 1700)] as const));
    const others = pairs.filter(([u, , j]) => !rows[u]!.includes(j));
    const column = (at: 0 | 1 | 2) => Int32Array.from(others, (pair) => pair[at]);
    const chosen = await model.scorePairs(column(0), column(1));
    const drawn = await model.scorePairs(column(0), column(2));
    expect(chosen.filter((score, n) => score > drawn[n]!).length / others.length).toBeGreaterThan(
      options.negativeSampling === 'hard' ? 0.7 : 0.85,
    );
  });
});

describe('negatives', () => {
  it('are never own items: who has all but one only moves against that one', async () => {
    const rows = [Array.from({ length: 40 }, (_, i) => i), [3, 4]];
    for (const [, options] of kinds) {
      // Nobody chose item 40, so popularity never draws it and user 0 has no negative at all.
      const model = new BPR({ ...small, ...options, iterations: 30, learningRate: 0.2 });
      await model.fit(await matrixOf(rows, 41));
      const scores = await model.scorePairs(
        new Int32Array(41),
        Int32Array.from({ length: 41 }, (_, i) => i),
      );
      const others = Array.from(scores.subarray(0, 40));
      if (options.negativeSampling !== 'popularity') expect(scores[40]!).toBeLessThan(Math.min(...others));
    }
  });

  it('do not exist for who has everything, whose vector then stays', async () => {
    const rows = [[0, 1, 2], [1]];
    const one = await new BPR({ ...small, iterations: 1 }).fit(await matrixOf(rows, 3));
    const many = await new BPR({ ...small, iterations: 9 }).fit(await matrixOf(rows, 3));
    const [a, b] = [await nested(one.userFactors), await nested(many.userFactors)];
    expect(a[0]).toEqual(b[0]);
    expect(a[1]).not.toEqual(b[1]);
  });
});

/** Two tastes: users like items of their own parity. */
const next = numbers(1);
const tastes = Array.from({ length: 60 }, (_, u) => {
  const own = new Set(Array.from({ length: 16 }, () => 2 * Math.floor(next() * 30) + (u % 2)));
  return [...own].map((i) => [`u${u}`, `i${i}`, 1] as const);
}).flat();
const parity = (id: unknown) => Number(String(id).slice(1)) % 2;

describe.each(kinds)('taste: %s', (_, options) => {
  let model: BPR;
  beforeAll(async () => {
    model = await new BPR({ factors: 8, iterations: 100, regularization: 0.1, ...options }).fit(
      await interactionsOf(tastes),
    );
  });

  it('recommends by it', async () => {
    for (const user of ['u0', 'u1', 'u20', 'u41'])
      for (const { item } of await model.recommend(user, { k: 8 })) expect(parity(item)).toBe(parity(user));
  });

  it('finds similar items and users', async () => {
    for (const { item } of await model.similarItems('i4', { k: 6 })) expect(parity(item)).toBe(0);
    for (const { user } of await model.similarUsers('u3', { k: 5 })) expect(parity(user)).toBe(1);
  });

  it('takes in a new item of one taste', async () => {
    const learner = await new BPR({ factors: 8, iterations: 100, regularization: 0.1, ...options }).fit(
      await interactionsOf(tastes),
    );
    const odd = Array.from({ length: 12 }, (_, n) => [`u${4 * n + 1}`, 'i99', 1] as const);
    await learner.partialFit(await interactionsOf(odd));
    const mean = async (rest: number) => {
      const scores = await Promise.all([2, 6, 10, 14, 18].map((u) => learner.score(`u${u + rest}`, 'i99')));
      return scores.reduce((a, b) => a + b, 0) / scores.length;
    };
    expect(await mean(1)).toBeGreaterThan((await mean(0)) + 1);
    for (const { item } of await learner.similarItems('i99', { k: 6 })) expect(parity(item)).toBe(1);
  });

  it('folds a history in: a vector that ranks by its taste, the same each time', async () => {
    const history = ['i1', 'i7', 'i21'];
    const vector = await model.foldIn(history);
    expect(vector.length).toBe(8);
    expect([...(await model.foldIn(history))]).toEqual([...vector]);
    for (const { item } of await model.recommend({ history }, { k: 8 })) expect(parity(item)).toBe(1);
    await expect(model.foldIn([])).rejects.toMatchObject({ code: 'ERR_VALUE' });
    await expect(model.foldIn(['x'])).rejects.toMatchObject({ code: 'ERR_UNKNOWN_ID' });
  });
});

describe('warm start', () => {
  const rows = triplets(60, 80);
  it('goes on where the last fit ended, by id; what is new starts at random', async () => {
    const options = { factors: 6, iterations: 40, learningRate: 0.1, biases: true, computeLoss: true };
    const model = await new BPR(options).fit(await interactionsOf(rows));
    const [first, last] = [model.loss[0]!, model.loss.at(-1)!];
    const more = [...rows, [1000, 3, 1] as const, [1000, 900, 1] as const].reverse();
    await model.fit(await interactionsOf(more), { warmStart: true });
    expect(model.loss[0]!).toBeLessThan((first + last) / 2);
    const users = await nested(model.userFactors);
    expect(users[model.users.indexOf(1000)]!.every((v) => v !== 0)).toBe(true);
    await expect(new BPR(options).fit(await interactionsOf(rows), { warmStart: true })).rejects.toMatchObject({
      code: 'ERR_NOT_FITTED',
    });
  });
});

describe('options', () => {
  const dir = mkdtempSync(join(tmpdir(), 'topknot-bpr-'));
  afterAll(() => rmSync(dir, { recursive: true }));

  const bad: [BPROptions, string, RegExp][] = [
    [{ factors: 0 }, 'ERR_RANGE', /^factors: expected 1 to 4096 but received 0/],
    [{ iterations: 1.5 }, 'ERR_ARGUMENT', /^iterations: expected an integer but received 1.5/],
    [{ learningRate: -0.1 }, 'ERR_RANGE', /^learningRate: /],
    [{ learningRate: Number.NaN }, 'ERR_ARGUMENT', /^learningRate: .* NaN/],
    [{ regularization: -1 }, 'ERR_RANGE', /^regularization: /],
    [{ negativeSampling: 'warp' as never }, 'ERR_ARGUMENT', /^negativeSampling: expected 'uniform' or /],
    [{ candidates: 0 }, 'ERR_RANGE', /^candidates: /],
    [{ initStd: Number.POSITIVE_INFINITY }, 'ERR_ARGUMENT', /^initStd: /],
    [{ hogwild: 1 as never }, 'ERR_ARGUMENT', /^hogwild: expected true or false but received 1/],
    [{ biases: 'yes' as never }, 'ERR_ARGUMENT', /^biases: /],
    [{ learningRate: 0 }, 'ERR_RANGE', /^learningRate: expected a number above 0 but received 0/],
    [{ seed: -1 }, 'ERR_RANGE', /^seed: /],
    [{ epochs: 3 } as never, 'ERR_ARGUMENT', /^options\.epochs: no such option/],
  ];
  it.each(bad)('refuses %j', (options, code, message) => {
    expect(() => new BPR(options)).toThrow(expect.objectContaining({ code, message: expect.stringMatching(message) }));
  });

  it('refuses a learning rate with which the vectors grow without bound, and keeps the last fit', async () => {
    const data = await interactionsOf(triplets(30, 40));
    const model = new BPR({ factors: 4, iterations: 300, learningRate: 1000, regularization: 1 });
    const error = { code: 'ERR_VALUE', message: expect.stringMatching(/^learningRate: with 1000 /) };
    await expect(model.fit(data)).rejects.toMatchObject(error);
    expect(model.isFitted).toBe(false);
  });

  it('travel with the model', async () => {
    const data = await interactionsOf(triplets(30, 40));
    const model = await new BPR({ factors: 3, negativeSampling: 'hard', biases: true, seed: 7 }).fit(data);
    await model.save(join(dir, 'a'));
    const back = await BPR.load(join(dir, 'a'));
    expect(back.options).toEqual(model.options);
    expect([...(await back.itemBiases!.data())]).toEqual([...(await model.itemBiases!.data())]);
    expect([...(await back.foldIn([3, 4]))]).toEqual([...(await model.foldIn([3, 4]))]);
    expect(await back.similarItems(5)).toEqual(await model.similarItems(5));
  });

  it('depend on the seed', async () => {
    const data = await interactionsOf(triplets(30, 40));
    const [a, b] = [await new BPR({ ...small, seed: 1 }).fit(data), await new BPR({ ...small, seed: 2 }).fit(data)];
    expect(await nested(a.itemFactors)).not.toEqual(await nested(b.itemFactors));
  });
});
