import { beforeAll, describe, expect, it } from 'vitest';
import { CsrMatrix, EASE, type EASEOptions, type Interactions } from '../../lib/index.js';
import { ease, truncate } from '../reference/ease.js';
import { dense, difference } from './matrices.js';
import { interactionsOf, modelSuite, triplets } from './suite.js';

modelSuite(
  'ease',
  () => new EASE({ regularization: 5 }),
  (path, options) => EASE.load(path, options),
  { needsHistory: true },
);
modelSuite(
  'ease-neighbours',
  () => new EASE({ regularization: 5, neighbours: 12 }),
  (path, options) => EASE.load(path, options),
  { needsHistory: true },
);

const [userCount, itemCount] = [30, 40];
const rows = triplets(userCount, itemCount);
const historyOf = (user: number) => rows.filter((r) => r[0] === user).map(([, item, weight]) => ({ item, weight }));
let data: Interactions;
let byUser: number[][];
beforeAll(async () => {
  data = await interactionsOf(rows);
  byUser = await dense(await data.matrix());
});

// 30 users of 40 items go by the users' Gram matrix; the transposed data by the items'.
const forms: EASEOptions[] = [{ regularization: 3 }, { regularization: 100 }, { regularization: 10, neighbours: 6 }];
describe.each(forms)('against Gauss-Jordan in float64: %j', (options) => {
  it('is the same with more users than items', async () => {
    const turned = await interactionsOf(rows.map(([u, i, x]) => [i, u, x]));
    const model = await new EASE(options).fit(turned);
    const x = await dense(await turned.matrix());
    const whole = ease(x, model.options.regularization);
    const b = model.options.neighbours ? truncate(whole, model.options.neighbours) : whole;
    for (const user of [3, 17]) {
      const row = x[model.users.indexOf(user)]!;
      const history = row.flatMap((weight, i) => (weight > 0 ? [{ item: model.items.at(i), weight }] : []));
      const exact = b.map((_, j) => row.reduce((sum, v, i) => sum + v * b[i]![j]!, 0));
      expect(difference([[...(await model.scoreItems(history))]], [exact])).toBeLessThan(1e-5);
    }
  });

  it('scores X B, explained and folded in by the same weights', async () => {
    const model = await new EASE(options).fit(data);
    const { regularization, neighbours } = model.options;
    const whole = ease(byUser, regularization);
    const b = neighbours ? truncate(whole, neighbours) : whole;
    const exact = byUser.map((x) => b.map((_, j) => x.reduce((sum, v, i) => sum + v * b[i]![j]!, 0)));
    const scores = await Promise.all([...model.users].map((user) => model.scoreItems(historyOf(user as number))));
    expect(
      difference(
        scores.map((s) => [...s]),
        exact,
      ),
    ).toBeLessThan(1e-5);
    for (const user of [0, 13, 29]) {
      const list = await model.recommend(user, { k: 5 });
      const own = scores[model.users.indexOf(user)]!;
      for (const { item, score } of list) {
        expect(score).toBe(own[model.items.indexOf(item)]);
        const why = await model.explain(user, item, { k: 1000 });
        expect(why.score).toBeCloseTo(score, 5);
        for (const { item: from, contribution } of why.contributions) {
          const [i, j] = [model.items.indexOf(from), model.items.indexOf(item)];
          expect(contribution).toBeCloseTo(byUser[model.users.indexOf(user)]![i]! * b[i]![j]!, 5);
        }
      }
      expect(await model.recommend({ history: historyOf(user) }, { k: 5 })).toEqual(list);
    }
    const i = model.items.indexOf(3);
    const similar = await model.similarItems(3, { k: itemCount });
    expect(similar.length).toBe(b[i]!.filter((x) => x > 0).length);
    for (const { item, score } of similar) expect(score).toBeCloseTo(b[i]![model.items.indexOf(item)]!, 5);
  });
});

it('says what memory is missing before it starts', async () => {
  const cell = [Int32Array.of(0), Int32Array.of(0), undefined] as const;
  const wide = await CsrMatrix.fromCoo(...cell, { shape: [1, 400_000] });
  const whole = expect.stringMatching(
    /^EASE: 400000 items and 1 users need 64\d\.\d+ GB .* only [\d.]+ GB .*neighbours/,
  );
  await expect(new EASE().fit(wide)).rejects.toMatchObject({ code: 'ERR_MEMORY', message: whole });
  const square = await CsrMatrix.fromCoo(...cell, { shape: [500_000, 400_000] });
  const any = expect.stringMatching(/^EASE: 400000 items and 500000 users need 64\d\.\d+ GB/);
  await expect(new EASE({ neighbours: 5 }).fit(square)).rejects.toMatchObject({ code: 'ERR_MEMORY', message: any });
});

it('says when the regularization is too small', async () => {
  const alike = Array.from({ length: 40 }, (_, n) => [n % 4, Math.floor(n / 4), 1000] as const);
  await expect(new EASE({ regularization: 1e-6 }).fit(await interactionsOf(alike))).rejects.toMatchObject({
    code: 'ERR_VALUE',
    message: expect.stringMatching(
      /^EASE: the Gram matrix \+ regularization is not positive definite.*larger regularization/,
    ),
  });
});

it.each([
  [{ regularization: 0 }, 'ERR_RANGE'],
  [{ regularization: -1 }, 'ERR_RANGE'],
  [{ regularization: Number.NaN }, 'ERR_ARGUMENT'],
  [{ neighbours: -1 }, 'ERR_RANGE'],
  [{ neighbours: 1.5 }, 'ERR_ARGUMENT'],
  [{ lambda: 3 } as never, 'ERR_ARGUMENT'],
])('refuses %j', (options, code) => {
  expect(() => new EASE(options)).toThrow(expect.objectContaining({ code }));
});
