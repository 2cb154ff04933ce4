import { join } from 'node:path';
import { expect, it } from 'vitest';
import { CsrMatrix, type Id, type Interactions, type JobOptions, type Tensor } from '../../lib/index.js';
import { type AnyModel, interactionsOf, rejects } from './any-model.js';

interface Subject {
  /** Fitted on `data`. */
  model(): AnyModel;
  make(): AnyModel;
  load(path: string, options?: JobOptions): Promise<AnyModel>;
  data(): Interactions;
  /** What `data` holds: 40 users, 70 items. */
  rows: readonly (readonly [Id, Id, number])[];
  dir: string;
  /** To how many digits `explain` accounts for a score. */
  explainDigits: number;
}

/** What the model suite asks of fold-in, explanations, learning on, and the tensors that a model hands out. */
export function learningTests({ model, make, load, data, rows, dir, explainDigits }: Subject): void {
  const [userCount, itemCount] = [40, 70];

  it('folds a history in to a vector such as it has of its users', async () => {
    if (!model().foldIn) return;
    const vector = await model().foldIn!(['i1', { item: 'i2', weight: 2 }, 'i5']);
    expect(vector).toBeInstanceOf(Float32Array);
    expect(vector.length).toBe(model().userFactors!.shape[1]);
  });

  it('scores an item for a visitor as it recommends it', async () => {
    const history = ['i1', 'i5'];
    for (const { item, score } of await model().recommend({ history }, { k: 4 }))
      expect(await model().score({ history }, item)).toBe(score);
    await rejects({ code: 'ERR_UNKNOWN_ID', message: /^item: 'x'/ }, () => model().score({ history }, 'x'));
  });

  it('explains the score of a visitor, all of it', async () => {
    if (!model().explain) return;
    const history = ['i1', { item: 'i2', weight: 2 }, 'i5', 'i9'];
    for (const item of ['i0', 'i5', 'i44']) {
      const { score, baseline = 0, contributions } = await model().explain!({ history }, item);
      const sum = contributions.reduce((total, c) => total + c.contribution, baseline);
      expect(sum).toBeCloseTo(score, 5);
      expect(score).toBeCloseTo(await model().score({ history }, item), explainDigits);
      const sorted = contributions.map((c) => c.contribution).sort((a, b) => b - a);
      expect(contributions.map((c) => c.contribution)).toEqual(sorted);
    }
  });

  it('lends its tensors: disposing them leaves it whole', async () => {
    const before = await model().recommend('u3');
    const names = ['userFactors', 'itemFactors', 'userBiases', 'itemBiases', 'singularValues'] as const;
    for (const lend of [() => model().interactions, ...names.map((name) => () => model()[name])]) {
      const values = async () => {
        const part = lend();
        return part && (await (part instanceof CsrMatrix ? part.values : part).data());
      };
      const first = await values();
      lend()?.dispose();
      expect(await values()).toEqual(first);
    }
    model().interactions.indices.dispose();
    expect((await model().interactions.indices.data()).length).toBe(rows.length);
    expect(await model().recommend('u3')).toEqual(before);
    const other = make();
    await other.fit(data());
    const [factors, { values: seen }] = [other.itemFactors, other.interactions];
    other.dispose();
    expect(seen.disposed).toBe(true);
    expect(factors?.disposed ?? true).toBe(true);
  });

  it('takes in new users and items by partialFit, and leaves all others', async () => {
    if (!model().partialFit) return;
    const learner = make() as AnyModel & Required<Pick<AnyModel, 'partialFit'>>;
    await learner.fit(data());
    const table = async (t: Tensor | undefined) => {
      const flat = Array.from((await t!.data()) as Float32Array);
      const width = t!.shape[1] ?? 1;
      return Array.from({ length: t!.shape[0]! }, (_, r) => flat.slice(r * width, (r + 1) * width));
    };
    const parts = ['userFactors', 'itemFactors', 'userBiases', 'itemBiases'] as const;
    const has = parts.filter((part) => learner[part]?.size);
    const before = await Promise.all(has.map((part) => table(learner[part])));
    const heard: number[] = [];
    const more = await interactionsOf([
      ['u4', 'new item', 2],
      ['new user', 'i7', 3],
      ['new user', 'new item', 1],
    ]);
    await learner.partialFit(more, { onProgress: (p) => heard.push(p.done / p.total) });
    expect(heard.at(-1)).toBe(1);
    expect([learner.users.size, learner.items.size]).toEqual([userCount + 1, itemCount + 1]);
    expect(learner.interactions.nnz).toBe(rows.length + 3);
    for (const [n, part] of has.entries()) {
      const after = await table(learner[part]);
      const ids = part.startsWith('user') ? learner.users : learner.items;
      for (const [row, old] of before[n]!.entries())
        if (!['u4', 'i7'].includes(ids.at(row) as string)) expect(after[row]).toEqual(old);
    }
    const list = await learner.recommend('new user', { k: itemCount + 1 });
    expect(list.length).toBe(itemCount - 1);
    for (const { score } of list) expect(Number.isFinite(score)).toBe(true);
    const path = join(dir, 'learned on.safetensors');
    await learner.save(path);
    expect(await (await load(path)).recommend('new user', { k: itemCount + 1 })).toEqual(list);

    // Only the side that was asked for; a user who is new is what fold-in makes of them.
    for (const update of ['users', 'items'] as const) {
      const one = make() as typeof learner;
      await one.fit(data());
      await one.partialFit(await interactionsOf([['new user', 'i7', 3]]), { update });
      const now = await Promise.all(has.map((part) => table(one[part])));
      for (const [n, part] of has.entries()) {
        const known = now[n]!.slice(0, before[n]!.length);
        expect(JSON.stringify(known) === JSON.stringify(before[n])).toBe(
          !part.startsWith(update.slice(0, 4)) || update === 'users',
        );
      }
      if (update !== 'users') continue;
      const vector = await one.foldIn!([{ item: 'i7', weight: 3 }]);
      if (vector.length) for (const [k, x] of now[0]!.at(-1)!.entries()) expect(x).toBeCloseTo(vector[k]!, 5);
      const [score] = await one.recommend({ history: [{ item: 'i7', weight: 3 }] }, { k: 1 });
      expect(await one.score('new user', score!.item)).toBeCloseTo(score!.score, 4);
    }
    await rejects({ code: 'ERR_ARGUMENT' }, async () => learner.partialFit(await interactionsOf([[1, 'i1', 1]])));
    const message = /^update: expected/;
    await rejects({ code: 'ERR_ARGUMENT', message }, () => learner.partialFit(data(), { update: 'all' as never }));
    expect(await learner.recommend('new user', { k: itemCount + 1 })).toEqual(list);
  });
}
