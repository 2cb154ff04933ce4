import { beforeAll, describe, expect, it } from 'vitest';
import { type Interactions, NMF, type NMFOptions } from '../../lib/index.js';
import { distanceFromMinimum, objective } from '../reference/nmf.js';
import { dense, difference, nested, transpose } from './matrices.js';
import { interactionsOf, modelSuite, triplets } from './suite.js';

const small = { factors: 6, iterations: 4 };
modelSuite(
  'nmf',
  () => new NMF(small),
  (path, options) => NMF.load(path, options),
  { needsHistory: true },
);
modelSuite(
  'nmf-kl',
  () => new NMF({ ...small, objective: 'kl' }),
  (path, options) => NMF.load(path, options),
  { needsHistory: true },
);
modelSuite(
  'nmf-observed',
  () => new NMF({ ...small, over: 'observed', regularization: 0.1 }),
  (path, options) => NMF.load(path, options),
  { needsHistory: true },
);

const rows = triplets(30, 40);
const historyOf = (user: number) => rows.filter((r) => r[0] === user).map(([, item, weight]) => ({ item, weight }));
let data: Interactions;
let byUser: number[][];
beforeAll(async () => {
  data = await interactionsOf(rows);
  byUser = await dense(await data.matrix());
});

const forms: NMFOptions[] = [
  { regularization: 0.05 },
  { regularization: 0.02, regularizationForm: 'perEntry' },
  { over: 'observed', regularization: 0.05 },
  { objective: 'kl', regularization: 0.05 },
  { objective: 'kl', over: 'observed', regularization: 0.05 },
];

describe.each(forms)('against the float64 formula: %j', (options) => {
  it('reports the objective, which falls, with no negative element', async () => {
    const model = await new NMF({ ...options, factors: 5, iterations: 12, computeLoss: true }).fit(data);
    const [w, h] = [await nested(model.userFactors), await nested(model.itemFactors)];
    const exact = objective(byUser, w, h, model.options);
    expect(model.loss.length).toBe(12);
    expect(Math.abs(model.loss[11]! - exact) / exact).toBeLessThan(1e-5);
    for (let i = 1; i < 12; i++) expect(model.loss[i]!).toBeLessThanOrEqual(model.loss[i - 1]! * (1 + 1e-6));
    expect(model.loss[11]!).toBeLessThan(0.95 * model.loss[0]!);
    expect(Math.min(...w.flat(), ...h.flat())).toBeGreaterThanOrEqual(0);
  });

  it('comes to where the conditions of a minimum hold, on both sides', async () => {
    const model = await new NMF({ ...options, factors: 4, iterations: 1500 }).fit(data);
    const [w, h] = [await nested(model.userFactors), await nested(model.itemFactors)];
    const columns = transpose(byUser);
    for (const [u, x] of byUser.entries()) expect(distanceFromMinimum(x, w[u]!, h, model.options)).toBeLessThan(1e-3);
    for (const [i, x] of columns.entries()) expect(distanceFromMinimum(x, h[i]!, w, model.options)).toBeLessThan(1e-3);
  });

  it('folds a history in to the minimum', async () => {
    const model = await new NMF({ ...options, factors: 5, iterations: 6 }).fit(data);
    const h = await nested(model.itemFactors);
    for (const user of [0, 13, 29]) {
      const vector = [...(await model.foldIn(historyOf(user)))];
      const x = byUser[model.users.indexOf(user)]!;
      expect(distanceFromMinimum(x, vector, h, model.options)).toBeLessThan(1e-3);
      const [best] = await model.recommend({ history: historyOf(user) }, { k: 1 });
      const score = vector.reduce((sum, a, k) => sum + a * h[model.items.indexOf(best!.item)]![k]!, 0);
      expect(best!.score).toBeCloseTo(score, 4);
    }
  });
});

it.each(['frobenius', 'kl'] as const)('finds nonnegative factors again: %s', async (kind) => {
  const part = (n: number, phase: number) => Array.from({ length: n }, (_, i) => Math.max(0, Math.sin(i + phase)));
  const [a, b] = [[part(20, 0), part(20, 2)], [part(15, 1), part(15, 3)]]; // biome-ignore format: pairs
  const cells = a[0]!.flatMap((_, u) =>
    b[0]!.map((_, i) => [u, i, a[0]![u]! * b[0]![i]! + a[1]![u]! * b[1]![i]!] as [number, number, number]),
  );
  const exact = await interactionsOf(cells.filter(([, , x]) => x > 0));
  const model = await new NMF({ factors: 2, iterations: 300, regularization: 0, objective: kind }).fit(exact);
  const [w, h] = [await nested(model.userFactors), await nested(model.itemFactors)];
  const product = w.map((user) => h.map((item) => user[0]! * item[0]! + user[1]! * item[1]!));
  expect(difference(product, await dense(await exact.matrix()))).toBeLessThan(0.01);
});

it('over the observed cells predicts them, and leaves the others open', async () => {
  const model = await new NMF({ factors: 8, iterations: 100, over: 'observed', regularization: 1e-3 }).fit(data);
  const errors = await Promise.all(rows.map(async ([u, i, x]) => Math.abs((await model.score(u, i)) - x)));
  expect(errors.reduce((a, b) => a + b) / errors.length).toBeLessThan(0.1);
});

it('goes on where the last fit ended', async () => {
  const options = { factors: 5, regularization: 0.05 };
  const short = await new NMF({ ...options, iterations: 2 }).fit(data);
  await short.fit(data, { warmStart: true });
  const long = await new NMF({ ...options, iterations: 4 }).fit(data);
  expect(difference(await nested(short.userFactors), await nested(long.userFactors))).toBeLessThan(1e-5);
  await short.fit(await interactionsOf([...rows, [1000, 3, 1]]), { warmStart: true });
  expect(await short.score(1000, 3)).toBeGreaterThan(0);
  await expect(new NMF().fit(data, { warmStart: true })).rejects.toMatchObject({ code: 'ERR_NOT_FITTED' });
});

it.each([
  [{ factors: 0 }, 'ERR_RANGE'],
  [{ objective: 'l1' as never }, 'ERR_ARGUMENT'],
  [{ over: 'some' as never }, 'ERR_ARGUMENT'],
  [{ regularization: -1 }, 'ERR_RANGE'],
  [{ regularizationForm: 'row' as never }, 'ERR_ARGUMENT'],
  [{ iterations: 0 }, 'ERR_RANGE'],
  [{ computeLoss: 'yes' as never }, 'ERR_ARGUMENT'],
  [{ loss: 'kl' } as never, 'ERR_ARGUMENT'],
])('refuses %j', (options, code) => {
  expect(() => new NMF(options)).toThrow(expect.objectContaining({ code }));
});
