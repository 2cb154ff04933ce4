// An option that does not exist is refused everywhere, where a typo would otherwise change the result in silence.
import { describe, expect, it } from 'vitest';
import {
  ALS,
  evaluate,
  FlatIndex,
  Interactions,
  kFold,
  Popularity,
  Random,
  splitLast,
  splitRatio,
  topK,
  topKSync,
} from '../../lib/index.js';

const arrays = { users: ['a', 'a', 'b', 'b'], items: [1, 2, 2, 3], values: [1, 2, 3, 4] };
const data = await Interactions.fromArrays(arrays);
const model = await new ALS({ factors: 2, iterations: 1 }).fit(data);
const typo = { oops: 1 } as never;

describe('a misspelt option', () => {
  it.each<[string, () => unknown]>([
    ['new ALS', () => new ALS(typo)],
    ['new Popularity', () => new Popularity(typo)],
    ['new Random', () => new Random(typo)],
    ['ALS.fit', () => new ALS().fit(data, typo)],
    ['Popularity.fit', () => new Popularity().fit(data, typo)],
    ['Random.fit', () => new Random().fit(data, typo)],
    ['partialFit', () => model.partialFit(data, typo)],
    ['recommend', () => model.recommend('a', typo)],
    ['recommendSync', () => model.recommendSync('a', typo)],
    ['similarItems', () => model.similarItems(1, typo)],
    ['explain', () => model.explain('a', 1, typo)],
    ['evaluate', () => evaluate(model, { train: data, test: data }, typo)],
    ['Interactions.from', () => Interactions.from([['a', 1]], { user: 0, item: 1, ...(typo as object) })],
    ['Interactions.fromArrays', () => Interactions.fromArrays(arrays, typo)],
    ['Interactions.read', () => Interactions.read('x.csv', { user: 'u', item: 'i', ...(typo as object) })],
    ['Interactions.query', () => Interactions.query('SELECT 1', { user: 'u', item: 'i', ...(typo as object) })],
    ['topK', () => topK(model.userFactors, model.itemFactors, 1, typo)],
    ['topKSync', () => topKSync(model.userFactors, model.itemFactors, 1, typo)],
    ['weight', () => data.weight('log', typo)],
    ['filter', () => data.filter(typo)],
    ['splitRatio', () => splitRatio(data, { test: 0.5, ...(typo as object) })],
    ['splitLast', () => splitLast(data, typo)],
    ['kFold', () => kFold(data, 2, typo).next()],
    ['FlatIndex.from', () => FlatIndex.from<string>(['x'], new Float32Array(1), typo)],
  ])('%s', async (_, call) => {
    await expect((async () => call())()).rejects.toMatchObject({
      name: 'TopknotError',
      code: 'ERR_ARGUMENT',
      message: expect.stringContaining('options.oops'),
    });
  });

  it('options that are no object are refused too', async () => {
    await expect(evaluate(model, { train: data, test: data }, null as never)).rejects.toMatchObject({
      code: 'ERR_ARGUMENT',
    });
    await expect(splitRatio(data, undefined as never)).rejects.toMatchObject({ code: 'ERR_ARGUMENT' });
    await expect(evaluate(model, undefined as never)).rejects.toMatchObject({ code: 'ERR_ARGUMENT' });
    await expect(model.explain(null as never, 1)).rejects.toMatchObject({ code: 'ERR_ARGUMENT' });
  });
});
