import { expect, it } from 'vitest';
import { Popularity, Random } from '../../lib/index.js';
import { interactionsOf, modelSuite } from './suite.js';

modelSuite(
  'popularity',
  () => new Popularity(),
  (path, options) => Popularity.load(path, options),
  { seeded: false },
);
modelSuite(
  'random',
  () => new Random(),
  (path, options) => Random.load(path, options),
);

it('popularity counts users or adds weights', async () => {
  const data = await interactionsOf([
    ['a', 'x', 1],
    ['b', 'x', 1],
    ['a', 'y', 5],
    ['b', 'z', 2],
  ]);
  const list = (model: Popularity) => model.recommend('a', { excludeSeen: false });
  expect(await list(await new Popularity().fit(data))).toEqual([
    { item: 'x', score: 2 },
    { item: 'y', score: 1 },
    { item: 'z', score: 1 },
  ]);
  expect(await list(await new Popularity({ by: 'weights' }).fit(data))).toEqual([
    { item: 'y', score: 5 },
    { item: 'x', score: 2 },
    { item: 'z', score: 2 },
  ]);
  expect(() => new Popularity({ by: 'luck' as never })).toThrow(expect.objectContaining({ code: 'ERR_ARGUMENT' }));
});

it('random scores are uniform and depend on seed, user and item', async () => {
  const data = await interactionsOf(
    Array.from({ length: 400 }, (_, n) => [n % 20, Math.floor(n / 20) * 1, 1] as const),
  );
  const pairs = {
    users: Int32Array.from({ length: 400 }, (_, n) => n % 20),
    items: Int32Array.from({ length: 400 }, (_, n) => Math.floor(n / 20)),
  };
  const scores = async (seed: number) => (await new Random({ seed }).fit(data)).scorePairs(pairs.users, pairs.items);
  const [a, b] = [await scores(1), await scores(2)];
  expect(new Set(a).size).toBe(400);
  expect([...a].filter((x, i) => x === b[i])).toEqual([]);
  const mean = a.reduce((sum, x) => sum + x, 0) / 400;
  expect(Math.abs(mean - 0.5)).toBeLessThan(0.06); // four standard errors
  expect(Math.min(...a)).toBeGreaterThanOrEqual(0);
  expect(Math.max(...a)).toBeLessThan(1);
});
