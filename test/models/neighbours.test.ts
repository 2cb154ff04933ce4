import { beforeAll, describe, expect, it } from 'vitest';
import { type Interactions, ItemKNN, type ItemKNNOptions, type NeighbourOptions, UserKNN } from '../../lib/index.js';
import { itemScores, nearest, userScores } from '../reference/neighbours.js';
import { dense, difference, transpose } from './matrices.js';
import { interactionsOf, modelSuite, triplets } from './suite.js';

modelSuite(
  'item-knn',
  () => new ItemKNN({ neighbours: 8 }),
  (path, options) => ItemKNN.load(path, options),
  { needsHistory: true },
);
modelSuite(
  'item-knn-normalized',
  () => new ItemKNN({ similarity: 'bm25', normalize: true, shrinkage: 2 }),
  (path, options) => ItemKNN.load(path, options),
  { needsHistory: true },
);
modelSuite(
  'user-knn',
  () => new UserKNN({ neighbours: 8, similarity: 'tfidf' }),
  (path, options) => UserKNN.load(path, options),
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

const forms: ItemKNNOptions[] = [
  { neighbours: 5 },
  { neighbours: 100, shrinkage: 10 },
  { neighbours: 7, similarity: 'tfidf', normalize: true },
  { neighbours: 6, asymmetry: 0.3 },
  { neighbours: 7, similarity: 'bm25', k1: 2, b: 0.5, shrinkage: 1 },
];

describe.each(forms)('item neighbours against the float64 reference: %j', (options) => {
  it('score as the formula says, and folding a history in is nothing else', async () => {
    const model = await new ItemKNN(options).fit(data);
    const items = transpose(byUser);
    for (const user of [0, 13, 29]) {
      const history = byUser[model.users.indexOf(user)]!;
      const scores = [...(await model.scoreItems(historyOf(user)))];
      expect(difference([scores], [itemScores(history, items, model.options)])).toBeLessThan(2e-6);
      const list = await model.recommend(user, { k: 5 });
      for (const { item, score } of list) expect(score).toBe(scores[model.items.indexOf(item)]);
      expect(await model.recommend({ history: historyOf(user) }, { k: 5 })).toEqual(list);
    }
  });

  it('explain the score', async () => {
    const model = await new ItemKNN(options).fit(data);
    for (const { item, score } of await model.recommend(4, { k: 5 })) {
      const why = await model.explain(4, item, { k: 1000 });
      expect(why.contributions.map((c) => c.item).sort()).toEqual(
        historyOf(4)
          .map((h) => h.item)
          .sort(),
      );
      expect(why.contributions.reduce((sum, c) => sum + c.contribution, 0)).toBeCloseTo(why.score, 6);
      expect(why.score).toBeCloseTo(score, 5);
      expect((await model.explain({ history: historyOf(4) }, item)).score).toBeCloseTo(score, 5);
      expect((await model.explain(4, item, { k: 2 })).contributions).toEqual(why.contributions.slice(0, 2));
    }
  });

  it('are the similar items', async () => {
    const model = await new ItemKNN(options).fit(data);
    const items = transpose(byUser);
    for (const item of [3, 17]) {
      const row = model.items.indexOf(item);
      const exact = nearest(items[row]!, items, row, model.options);
      const found = await model.similarItems(item, { k: itemCount });
      expect(found.length).toBe(exact.filter((s) => s > 0).length);
      expect(found.map((r) => r.score)).toEqual(found.map((r) => r.score).sort((a, b) => b - a));
      for (const { item: other, score } of found) expect(score).toBeCloseTo(exact[model.items.indexOf(other)]!, 5);
      const deny = [found[0]!.item];
      expect(await model.similarItems(item, { k: 2, deny })).toEqual(found.slice(1, 3));
    }
  });
});

describe.each(forms.map(({ normalize: _, ...o }): NeighbourOptions => o))(
  'user neighbours against the float64 reference: %j',
  (options) => {
    it('score as the formula says; a visitor is compared with all users', async () => {
      const model = await new UserKNN(options).fit(data);
      const everyone = [...model.items];
      for (const user of [0, 13, 29]) {
        const row = model.users.indexOf(user);
        const exact = userScores(byUser[row]!, byUser, row, model.options);
        const list = await model.recommend(user, { k: itemCount, excludeSeen: false });
        const scores = everyone.map((item) => list.find((r) => r.item === item)!.score);
        expect(difference([scores], [exact])).toBeLessThan(2e-6);
        const visitor = [...(await model.scoreItems(historyOf(user)))];
        const folded = userScores(byUser[row]!, byUser, undefined, model.options);
        expect(difference([visitor], [folded])).toBeLessThan(2e-6);
      }
    });

    it('are the similar users, and explain the score', async () => {
      const model = await new UserKNN(options).fit(data);
      const row = model.users.indexOf(5);
      const exact = nearest(byUser[row]!, byUser, row, model.options);
      const found = await model.similarUsers(5, { k: userCount });
      expect(found.length).toBe(exact.filter((s) => s > 0).length);
      expect(found.map((r) => r.score)).toEqual(found.map((r) => r.score).sort((a, b) => b - a));
      for (const { user, score } of found) expect(score).toBeCloseTo(exact[model.users.indexOf(user)]!, 5);
      expect(await model.similarUsers(5, { k: 2, deny: [found[0]!.user] })).toEqual(found.slice(1, 3));
      const [best] = await model.recommend(5, { k: 1 });
      const why = await model.explain(5, best!.item, { k: 1000 });
      expect(why.score).toBeCloseTo(best!.score, 5);
      for (const { user, contribution } of why.contributions) {
        const value = byUser[model.users.indexOf(user)]![model.items.indexOf(best!.item)]!;
        expect(contribution).toBeCloseTo(exact[model.users.indexOf(user)]! * value, 5);
      }
      const visitor = await model.explain({ history: historyOf(5) }, best!.item);
      expect(visitor.contributions[0]!.contribution).toBeGreaterThanOrEqual(visitor.contributions.at(-1)!.contribution);
    });
  },
);

it.each([ItemKNN, UserKNN])('refuse bad options and questions: %o', async (Model) => {
  const bad: [ItemKNNOptions, string, RegExp][] = [
    [{ neighbours: 0 }, 'ERR_RANGE', /^neighbours: /],
    [{ neighbours: 1.5 }, 'ERR_ARGUMENT', /^neighbours: /],
    [{ similarity: 'jaccard' as never }, 'ERR_ARGUMENT', /^similarity: expected 'cosine' or 'tfidf' or 'bm25'/],
    [{ shrinkage: -1 }, 'ERR_RANGE', /^shrinkage: /],
    [{ k1: Number.NaN }, 'ERR_ARGUMENT', /^k1: /],
    [{ b: 1.5 }, 'ERR_RANGE', /^b: expected 0 to 1/],
    [{ asymmetry: -0.1 }, 'ERR_RANGE', /^asymmetry: /],
    [{ k: 5 } as never, 'ERR_ARGUMENT', /^options\.k: no such option/],
  ];
  for (const [options, code, message] of bad)
    expect(() => new Model(options)).toThrow(
      expect.objectContaining({ code, message: expect.stringMatching(message) }),
    );
  const model = await new Model().fit(data);
  await expect(model.explain(0, 'x')).rejects.toMatchObject({ code: 'ERR_UNKNOWN_ID' });
  await expect(model.explain(0, 1, { k: 0 })).rejects.toMatchObject({ code: 'ERR_RANGE' });
  await expect(model.scoreItems([])).rejects.toMatchObject({ code: 'ERR_VALUE' });
  await expect(model.scoreItems(['x'])).rejects.toMatchObject({ code: 'ERR_UNKNOWN_ID' });
  await expect(model.explain(undefined as never, 1)).rejects.toMatchObject({ code: 'ERR_ARGUMENT' });
});

it('refuses a normalize that is no boolean', () => {
  expect(() => new ItemKNN({ normalize: 1 as never })).toThrow(expect.objectContaining({ code: 'ERR_ARGUMENT' }));
});

it('travel with their options', async () => {
  const { mkdtempSync, rmSync } = await import('node:fs');
  const dir = mkdtempSync('/tmp/topknot-knn-');
  try {
    const user = await new UserKNN({ similarity: 'bm25', neighbours: 4 }).fit(data);
    await user.save(`${dir}/u`);
    const back = await UserKNN.load(`${dir}/u`);
    expect(back.options).toEqual(user.options);
    expect(await back.scoreItems([3, 4])).toEqual(await user.scoreItems([3, 4]));
    const item = await new ItemKNN({ normalize: true, neighbours: 4 }).fit(data);
    await item.save(`${dir}/i`);
    const again = await ItemKNN.load(`${dir}/i`);
    expect(await again.scoreItems([3, 4])).toEqual(await item.scoreItems([3, 4]));
    expect(await again.similarItems(5)).toEqual(await item.similarItems(5));
  } finally {
    rmSync(dir, { recursive: true });
  }
});
