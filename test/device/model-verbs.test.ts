// What a model answers on the emulated GPU, against the same model on the CPU: one file, loaded on either.
import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import * as topknot from '../../lib/index.js';
import { type ALS, evaluate, type JobOptions, memory, splitRatio } from '../../lib/index.js';
import { interactionsOf, triplets } from '../models/suite.js';
import { settledMemory } from '../reference/memory.js';

const { train, test } = await splitRatio(await interactionsOf(triplets(60, 40)), { test: 0.3, seed: 2 });
const folder = mkdtempSync(join(tmpdir(), 'topknot-'));

// biome-ignore lint/suspicious/noExplicitAny: models by their names
const modelOf = (name: string) => (topknot as any)[name];

/** A model, its options, and the verbs that it has beside those of all. */
const models: [string, object, readonly ('similarItems' | 'similarUsers' | 'foldIn' | 'scoreItems')[]][] = [
  ['ALS', { factors: 6, iterations: 3 }, ['similarItems', 'similarUsers', 'foldIn']],
  ['ALS', { factors: 6, iterations: 2, solver: 'cg' }, ['foldIn']],
  ['BPR', { factors: 6, iterations: 4, biases: true }, ['similarItems', 'similarUsers', 'foldIn']],
  ['PureSVD', { factors: 4 }, ['similarItems', 'similarUsers', 'foldIn']],
  ['NMF', { factors: 4, iterations: 4 }, ['similarItems', 'foldIn']],
  ['NMF', { factors: 4, iterations: 4, objective: 'kl' }, ['foldIn']],
  ['LogisticMF', { factors: 4, iterations: 4 }, ['similarItems', 'similarUsers', 'foldIn']],
  ['BiasedMF', { factors: 4, solver: 'als' }, ['similarItems', 'similarUsers', 'foldIn']],
  ['SVDpp', { factors: 4, iterations: 3 }, ['similarItems', 'similarUsers']],
  ['ItemKNN', { neighbours: 8 }, ['similarItems', 'scoreItems']],
  ['UserKNN', { neighbours: 8, similarity: 'bm25' }, ['scoreItems']],
  ['EASE', { regularization: 3 }, ['similarItems', 'scoreItems']],
  ['EASE', { regularization: 3, neighbours: 6 }, ['scoreItems']],
];

/** Anything numbers are in, without its other parts. */
function numbersIn(value: unknown): number[] {
  if (typeof value === 'number') return [value];
  if (typeof value !== 'object' || value === null) return [];
  return Object.values(ArrayBuffer.isView(value) ? Array.from(value as never) : value).flatMap(numbersIn);
}

function expectNear(found: unknown, expected: unknown) {
  const [a, b] = [numbersIn(found), numbersIn(expected)];
  expect(a.length).toBe(b.length);
  expect(b.length).toBeGreaterThan(0);
  const size = Math.max(...b.map(Math.abs));
  for (const [i, x] of b.entries()) expect(Math.abs(a[i]! - x)).toBeLessThanOrEqual(2e-4 * size);
}

describe.each(models)('%s %j', (name, options, verbs) => {
  const Model = modelOf(name);
  const path = join(folder, `${name}-${JSON.stringify(options).length}.safetensors`);

  it('answers on a GPU what it answers on the CPU', async () => {
    const fitted = await new Model(options).fit(train);
    await fitted.save(path);
    const before = (await settledMemory()).cudaBuffers;
    const gpu = (await Model.load(path, { device: 'cuda:1' })) as ALS;
    const cpu = (await Model.load(path)) as ALS;
    expect(gpu.options.device).toBe('cuda:1');
    expect(memory().cudaBuffers).toBeGreaterThan(before);
    const users = Array.from({ length: train.users.size }, (_, row) => train.users.at(row));
    const items = [train.items.at(0), train.items.at(7), { item: train.items.at(3), weight: 2 }] as const;
    const deny = [train.items.at(1)];
    const each = async (ask: (model: ALS) => Promise<unknown>) => expectNear(await ask(gpu), await ask(cpu));
    await each((m) => m.recommend(users[2]!, { k: 5, deny }));
    await each((m) => m.recommend(users, { k: 3 }));
    await each((m) => m.recommend({ history: items }, { k: 4 }));
    await each(async (m) => m.recommendSync(users[1]!, { excludeSeen: false }));
    await each(async (m) => m.recommendSync({ history: items }));
    await each((m) => m.score(users[0]!, train.items.at(5)));
    for (const k of verbs.includes('similarItems') ? [4, 2] : [])
      await each((m) => m.similarItems(train.items.at(2), { k }));
    if (verbs.includes('similarUsers')) await each((m) => m.similarUsers(users[3]!, { k: 4 }));
    if (verbs.includes('foldIn')) await each((m) => m.foldIn(items));
    if (verbs.includes('scoreItems')) await each((m) => (m as unknown as topknot.EASE).scoreItems(items as never));
    await each((m) => m.score({ history: items }, train.items.at(5)));
    for (const protocol of ['full', { negatives: 10, seed: 1 }] as const) {
      const metrics = ['recall', 'ndcg', 'auc', 'coverage'] as const;
      const [a, b] = await Promise.all(
        [gpu, cpu].map((m) => evaluate(m, { train, test }, { metrics, k: 5, protocol })),
      );
      expect(Object.keys(b!.values).length).toBe(4);
      for (const [metric, value] of Object.entries(b!.values)) expect(a!.values[metric]).toBeCloseTo(value, 3);
    }
    gpu.dispose();
    expect((await settledMemory()).cudaBuffers).toBe(before);
  });
});

describe('a model on a GPU', () => {
  it.each(['ALS', 'BPR', 'NMF', 'LogisticMF', 'BiasedMF', 'SVDpp'] as const)('%s takes in more', async (name) => {
    const more = await interactionsOf([...triplets(5, 9), [1000, 3, 2]] as never);
    const path = join(folder, `${name}-more.safetensors`);
    const Model = modelOf(name);
    await (await new Model({ factors: 4, iterations: 2 }).fit(train)).save(path);
    const answers = async (device: string) => {
      const model = (await Model.load(path, { device })) as ALS;
      await model.partialFit(more as never);
      return model.recommend([0, 1, 2, 1000] as never, { k: 5 });
    };
    expectNear(await answers('cuda'), await answers('cpu'));
  });

  it('is refused by what computes on the CPU alone, when loaded too', async () => {
    const path = join(folder, 'popularity.safetensors');
    await (await new topknot.Popularity().fit(train)).save(path);
    const options = { device: 'cuda' } as JobOptions;
    await expect(topknot.Popularity.load(path, options)).rejects.toMatchObject({ code: 'ERR_DEVICE' });
    await expect(topknot.ALS.load(path, { device: 'cuda:9' })).rejects.toMatchObject({ code: 'ERR_FORMAT' });
  });

  it('learns as well there: the same recall within .001', async () => {
    const recall = async (device: string) => {
      const model = await new topknot.ALS({ factors: 8, iterations: 5, device }).fit(train);
      return (await evaluate(model, { train, test }, { metrics: ['recall'], k: 20 })).values['recall@20']!;
    };
    const [gpu, cpu] = [await recall('cuda'), await recall('cpu')];
    expect(cpu).toBeGreaterThan(0.1);
    expect(Math.abs(gpu - cpu)).toBeLessThan(0.001);
  });
});
