import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  type Evaluation,
  evaluate,
  type Ids,
  Interactions,
  type Metric,
  Popularity,
  type Scorer,
  setThreads,
  tensor,
  threads,
} from '../../lib/index.js';
import * as reference from '../reference/metrics.js';
import { counting, matrix, order, type Rows, scorer } from './fake.js';

const { precision, recall, f1, hitRate, ndcg, map, mrr } = reference;
const formulas = { precision, recall, f1, hitRate, ndcg, map, mrr };
const listNames = ['precision', 'recall', 'f1', 'hitRate', 'ndcg', 'map', 'mrr'] as const;
const every: Metric[] = [...listNames, 'auc', 'rmse', 'mae', 'coverage', 'gini', 'novelty', 'diversity'];

/** Small numbers of users and items, scores with many ties, train and test without overlap. */
const problem = fc
  .record({ users: fc.integer({ min: 1, max: 9 }), items: fc.integer({ min: 2, max: 14 }) })
  .chain(({ users, items }) =>
    fc.record({
      items: fc.constant(items),
      k: fc.uniqueArray(fc.integer({ min: 1, max: items }), { minLength: 1, maxLength: 3 }),
      scores: fc.array(fc.array(fc.integer({ min: -3, max: 3 }), { minLength: items, maxLength: items }), {
        minLength: users,
        maxLength: users,
      }),
      // 0: neither; 1: train; 2 to 5: test, with this value
      cells: fc.array(fc.array(fc.integer({ min: 0, max: 5 }), { minLength: items, maxLength: items }), {
        minLength: users,
        maxLength: users,
      }),
      vectors: fc.array(fc.array(fc.integer({ min: -2, max: 2 }), { minLength: 3, maxLength: 3 }), {
        minLength: items,
        maxLength: items,
      }),
    }),
  );
/** A model without and one with rankCounts. */
const maker = fc.constantFrom(scorer, counting);
const rowsOf = (cells: number[][], keep: (c: number) => boolean): Rows =>
  cells.map((row) => new Map(row.map((c, i) => [i, c] as const).filter(([, c]) => keep(c))));

/** Equal, NaN included, up to rounding. */
function close(actual: number | undefined, wanted: number, what: string) {
  if (Number.isNaN(wanted)) expect(actual, what).toBeNaN();
  else expect(Math.abs((actual ?? Number.NaN) - wanted), `${what}: ${actual} for ${wanted}`).toBeLessThan(1e-12);
}

function closeAll(actual: Float64Array, wanted: number[], what: string) {
  expect(actual.length, what).toBe(wanted.length);
  for (const [j, w] of wanted.entries()) close(actual[j], w, `${what} ${j}`);
}

function checkLists(
  found: Evaluation,
  k: number[],
  lists: number[][],
  test: Rows,
  gain: reference.Gain = reference.gains.binary,
) {
  const users = test.flatMap((t, u) => (t.size ? [u] : []));
  for (const name of listNames) {
    for (const cut of k) {
      const wanted = users.map((u, j) => formulas[name](lists[j]!, test[u]!, cut, gain));
      close(found.values[`${name}@${cut}`], reference.mean(wanted), `${name}@${cut}`);
      if (found.perUser) closeAll(found.perUser.values[`${name}@${cut}`]!, wanted, name);
    }
  }
}

describe('evaluate', () => {
  it('full ranking agrees with the formulas (property)', () =>
    fc.assert(
      fc.asyncProperty(problem, fc.constantFrom('binary', 'linear', 'exponential'), maker, async (p, gains, make) => {
        const trainRows = rowsOf(p.cells, (c) => c === 1);
        const testRows = rowsOf(p.cells, (c) => c > 1);
        const model = make(p.scores);
        const data = { train: await matrix(trainRows, p.items), test: await matrix(testRows, p.items) };
        const itemVectors = tensor(p.vectors);
        const found = await evaluate(model, data, { metrics: every, k: p.k, gains, itemVectors, perUser: true });
        const users = testRows.flatMap((t, u) => (t.size ? [u] : []));
        expect([found.users, found.skipped]).toEqual([users.length, testRows.length - users.length]);
        expect([...found.perUser!.rows]).toEqual(users);
        const lists = users.map((u) => order(p.scores[u]!, trainRows[u]!));
        checkLists(found, p.k, lists, testRows, reference.gains[gains]);

        const train = trainRows.map((row) => new Set(row.keys()));
        for (const k of p.k) {
          const novelty = lists.map((l) => reference.novelty(l, train, k));
          close(found.values[`novelty@${k}`], reference.mean(novelty), 'novelty');
          const diversity = lists.map((l) => reference.diversity(l, p.vectors, k));
          close(found.values[`diversity@${k}`], reference.mean(diversity), 'diversity');
          close(found.values[`coverage@${k}`], reference.coverage(lists, k, p.items), 'coverage');
          close(found.values[`gini@${k}`], reference.gini(lists, k, p.items), 'gini');
        }
        const auc = users.map((u, j) => reference.auc(lists[j]!, (i) => p.scores[u]![i]!, testRows[u]!));
        close(found.values.auc, reference.mean(auc), 'auc');
        closeAll(found.perUser!.values.auc!, auc, 'auc of a user');
        const errors = users.map((u) => [...testRows[u]!].map(([i, v]) => p.scores[u]![i]! - v));
        const mae = (e: number[]) => reference.mean(e.map(Math.abs));
        const rmse = (e: number[]) => Math.sqrt(reference.mean(e.map((x) => x * x)));
        close(found.values.mae, mae(errors.flat()), 'mae');
        close(found.values.rmse, rmse(errors.flat()), 'rmse');
        closeAll(found.perUser!.values.mae!, errors.map(mae), 'mae of a user');
        closeAll(found.perUser!.values.rmse!, errors.map(rmse), 'rmse of a user');
      }),
    ));

  it('full ranking with ties against puts test items last among equals (property)', () =>
    fc.assert(
      fc.asyncProperty(problem, maker, async (p, make) => {
        const trainRows = rowsOf(p.cells, (c) => c === 1);
        const testRows = rowsOf(p.cells, (c) => c > 1);
        const data = { train: await matrix(trainRows, p.items), test: await matrix(testRows, p.items) };
        const found = await evaluate(make(p.scores), data, { metrics: [...listNames, 'auc'], k: p.k, ties: 'against' });
        const lists = testRows.flatMap((t, u) =>
          t.size
            ? [
                order(
                  p.scores[u]!.map((s, i) => s - (t.has(i) ? 0.5 : 0)),
                  trainRows[u]!,
                ),
              ]
            : [],
        );
        checkLists(found, p.k, lists, testRows);
      }),
    ));

  it('given candidates are ranked together with the test items (property)', () =>
    fc.assert(
      fc.asyncProperty(problem, fc.constantFrom('id', 'against'), async (p, ties) => {
        const others = rowsOf(p.cells, (c) => c === 1 || c === 3); // some of them are test items too
        const testRows = rowsOf(p.cells, (c) => c > 2);
        const data = { train: await matrix(others, p.items), test: await matrix(testRows, p.items) };
        const found = await evaluate(scorer(p.scores), data, {
          metrics: [...listNames, 'auc'],
          k: p.k,
          ties,
          protocol: { candidates: await matrix(others, p.items) },
        });
        const users = testRows.flatMap((t, u) => (t.size ? [u] : []));
        const lists = users.map((u) => {
          const left = new Map(p.scores[u]!.map((_, i) => [i, 1]));
          for (const i of [...others[u]!.keys(), ...testRows[u]!.keys()]) left.delete(i);
          const late = ties === 'against' ? 0.5 : 0;
          return order(
            p.scores[u]!.map((s, i) => s - (testRows[u]!.has(i) ? late : 0)),
            left,
          );
        });
        checkLists(found, p.k, lists, testRows);
        const auc = users.map((u, j) => reference.auc(lists[j]!, (i) => p.scores[u]![i]!, testRows[u]!));
        close(found.values.auc, reference.mean(auc), 'auc');
      }),
    ));

  it('counts of a model agree with its whole order', async () => {
    const [users, items] = [60, 50];
    const pick = (u: number, i: number) => Math.imul(u * 31 + 7, i * 17 + 5) % 11;
    const rows = (bit: number): Rows =>
      Array.from(
        { length: users },
        (_, u) => new Map(Array.from({ length: items }, (_, i) => [i, 1] as const).filter(([i]) => pick(u, i) === bit)),
      );
    const data = { train: await matrix(rows(1), items), test: await matrix(rows(2), items) };
    const model = await new Popularity().fit(data.train);
    const uncounted: Scorer<number, number> = {
      users: model.users as Ids<number>,
      items: model.items as Ids<number>,
      topKRows: (...given) => model.topKRows(...given),
      scorePairs: (...given) => model.scorePairs(...given),
    };
    const options = { metrics: [...listNames, 'auc' as const], k: [3, 10], ties: 'against', perUser: true } as const;
    const counted = await evaluate(model as unknown as Scorer<number, number>, data, options);
    const ordered = await evaluate(uncounted, data, options);
    expect(counted.users).toBeGreaterThan(50);
    close(counted.values.auc, ordered.values.auc!, 'auc');
    for (const name of listNames) expect(counted.values[`${name}@10`]).toBe(ordered.values[`${name}@10`]);
  });

  it('draws distinct negatives outside train and test, evenly and by seed', async () => {
    const [users, items, negatives] = [400, 20, 5];
    const trainRows: Rows = Array.from(
      { length: users },
      () =>
        new Map([
          [0, 1],
          [19, 1],
        ]),
    );
    const testRows: Rows = Array.from({ length: users }, () => new Map([[7, 1]]));
    const data = { train: await matrix(trainRows, items), test: await matrix(testRows, items) };
    const asked: number[][] = Array.from({ length: users }, () => []);
    const model = scorer(Array.from({ length: users }, () => new Array<number>(items).fill(0)));
    const draw = async (seed: number) => {
      for (const list of asked) list.length = 0;
      const spy = {
        ...model,
        scorePairs: (u: Int32Array, i: Int32Array) => {
          for (const [j, user] of u.entries()) asked[user]!.push(i[j]!);
          return model.scorePairs(u, i);
        },
      };
      await evaluate(spy, data, { k: 1, protocol: { negatives, seed } });
      return asked.map((list) => [...list]);
    };
    const first = await draw(3);
    const counts = new Array<number>(items).fill(0);
    for (const list of first) {
      expect(new Set(list).size).toBe(negatives + 1);
      expect(list).toContain(7);
      for (const i of list) counts[i]!++;
    }
    expect([counts[0], counts[19], counts[7]]).toEqual([0, 0, users]);
    // 400 draws of 5 among 17: 118 expected, standard deviation 9
    for (const [i, c] of counts.entries())
      if (![0, 7, 19].includes(i)) expect(Math.abs(c - 117.6), `item ${i}`).toBeLessThan(45);
    expect(await draw(3)).toEqual(first);
    expect(await draw(4)).not.toEqual(first);
  });

  it('a case by hand', async () => {
    // User 0 has train item 4, test items 1 and 3; the list is 0 1 2 3. User 1 has no test item.
    const model = scorer([
      [9, 8, 7, 6, 99],
      [0, 0, 0, 0, 0],
    ]);
    const train = await matrix([new Map([[4, 1]]), new Map([[0, 1]])], 5);
    const test = await matrix(
      [
        new Map([
          [1, 5],
          [3, 7],
        ]),
        new Map(),
      ],
      5,
    );
    const found = await evaluate(model, { train, test }, { metrics: every.slice(0, 12), k: [2, 5] });
    expect(found).toMatchObject({ users: 1, skipped: 1 });
    expect(found.perUser).toBeUndefined();
    const ideal = 1 + 1 / Math.log2(3);
    const wanted: Record<string, number> = {
      'precision@2': 1 / 2,
      'precision@5': 2 / 5,
      'recall@2': 1 / 2,
      'recall@5': 1,
      'f1@2': 1 / 2,
      'f1@5': 4 / 7,
      'hitRate@2': 1,
      'ndcg@2': 1 / Math.log2(3) / ideal,
      'ndcg@5': (1 / Math.log2(3) + 1 / Math.log2(5)) / ideal,
      'map@2': 1 / 4,
      'map@5': (1 / 2 + 2 / 4) / 2,
      'mrr@2': 1 / 2,
      auc: 1 / 4, // of (1,0) (1,2) (3,0) (3,2) only (1,2) is won
      rmse: Math.sqrt((9 + 1) / 2),
      mae: 2,
      'coverage@2': 2 / 5,
      'gini@2': 3 / 5,
    };
    for (const [name, value] of Object.entries(wanted)) close(found.values[name], value, name);
  });

  it('lists shorter than k count as misses', async () => {
    const train = await matrix(
      [
        new Map([
          [0, 1],
          [1, 1],
        ]),
      ],
      3,
    );
    const test = await matrix([new Map([[2, 1]])], 3);
    const { values } = await evaluate(scorer([[3, 2, 1]]), { train, test }, { metrics: ['precision', 'ndcg'], k: 3 });
    expect(values).toEqual({ 'precision@3': 1 / 3, 'ndcg@3': 1 });
  });

  it('nobody with test items: NaN, and says so', async () => {
    const none = await matrix([new Map(), new Map()], 3);
    const found = await evaluate(
      scorer([
        [1, 2, 3],
        [1, 2, 3],
      ]),
      { train: none, test: none },
      { metrics: every.slice(0, 13), k: 2 },
    );
    expect(found).toMatchObject({ users: 0, skipped: 2 });
    expect(found.values['recall@2']).toBeNaN();
    expect(found.values.rmse).toBeNaN();
    expect(found.values['coverage@2']).toBe(0);
  });

  it('is the same at any number of threads', async () => {
    const before = threads();
    const [users, items] = [900, 40];
    const noise = (x: number) => Math.imul(x ^ (x >>> 15), 0x2c1b3c6d) >>> 16;
    const scores = Array.from({ length: users }, (_, u) =>
      Array.from({ length: items }, (_, i) => noise(u * 977 + i * 31) / 7),
    );
    const rows = (bit: number): Rows =>
      scores.map(
        (s, u) => new Map(s.flatMap((_, i) => (noise(u * 31 + i * 7) % 5 === bit ? [[i, 1 + (i % 5)] as const] : []))),
      );
    const data = { train: await matrix(rows(0), items), test: await matrix(rows(1), items) };
    const itemVectors = tensor(scores.slice(0, items).map((s) => s.slice(0, 8)));
    const results: Evaluation[] = [];
    try {
      for (const count of [1, 2, 4]) {
        setThreads(count);
        results.push(await evaluate(scorer(scores), data, { metrics: every, k: [5, 10], itemVectors, perUser: true }));
        results.push(
          await evaluate(scorer(scores), data, { metrics: ['ndcg', 'auc'], k: 5, protocol: { negatives: 9, seed: 1 } }),
        );
      }
    } finally {
      setThreads(before);
    }
    expect(results[2]).toStrictEqual(results[0]);
    expect(results[4]).toStrictEqual(results[0]);
    expect(results[3]).toStrictEqual(results[1]);
    expect(results[5]).toStrictEqual(results[1]);
  });
});

describe('evaluate refuses', async () => {
  const model = scorer([
    [1, 2, 3],
    [3, 2, 1],
  ]);
  const train = await matrix([new Map([[0, 1]]), new Map()], 3);
  const test = await matrix([new Map([[1, 1]]), new Map([[1, 1]])], 3);
  const wide = await matrix([new Map(), new Map()], 4);
  const data = { train, test };
  it.each([
    ['k above the items', data, { k: 4 }, 'ERR_RANGE', /k: expected 1 to 3/],
    ['k of 0', data, { k: [0] }, 'ERR_RANGE', /k:/],
    ['k that is no integer', data, { k: 1.5 }, 'ERR_ARGUMENT', /k:/],
    ['no k', data, { k: [] }, 'ERR_ARGUMENT', /k:/],
    ['an unknown metric', data, { metrics: ['nDCG' as Metric] }, 'ERR_ARGUMENT', /metrics: .*ndcg/],
    ['no metric', data, { metrics: [] }, 'ERR_ARGUMENT', /metrics:/],
    ['an unknown protocol', data, { k: 1, protocol: 'sampled' as 'full' }, 'ERR_ARGUMENT', /protocol:/],
    ['too many negatives', data, { k: 1, protocol: { negatives: 2 } }, 'ERR_RANGE', /user row 0 has only 1/],
    ['no negatives', data, { k: 1, protocol: { negatives: 0 } }, 'ERR_ARGUMENT', /protocol.negatives/],
    ['unknown ties', data, { k: 1, ties: 'best' as 'id' }, 'ERR_ARGUMENT', /ties:/],
    ['diversity without vectors', data, { k: 1, metrics: ['diversity' as const] }, 'ERR_ARGUMENT', /itemVectors/],
    [
      'vectors of other items',
      data,
      { k: 1, metrics: ['diversity' as const], itemVectors: tensor([[1]]) },
      'ERR_SHAPE',
      /itemVectors/,
    ],
    ['a test of another shape', { train, test: wide }, { k: 1 }, 'ERR_SHAPE', /test: expected \[2, 3\]/],
    ['a train of another shape', { train: wide, test }, { k: 1 }, 'ERR_SHAPE', /train: expected/],
    [
      'candidates of another shape',
      data,
      { k: 1, protocol: { candidates: wide } },
      'ERR_SHAPE',
      /candidates: expected/,
    ],
  ])('%s', async (_, given, options, code, message) => {
    await expect(evaluate(model, given, options)).rejects.toMatchObject({
      code,
      message: expect.stringMatching(message),
    });
  });

  it('interactions with other ids, and takes those with the same', async () => {
    const rows = { users: [0, 1, 1], items: [0, 1, 2] };
    const interactions = await Interactions.fromArrays(rows);
    const wide = scorer([
      [1, 2, 3],
      [3, 2, 1],
    ]);
    const own = { ...wide, users: interactions.users, items: interactions.items };
    const both = { train: interactions, test: interactions };
    expect((await evaluate(own, both, { k: 1 })).users).toBe(2);
    expect((await evaluate(wide, both, { k: 1 })).users).toBe(2);
    const others = await Interactions.fromArrays({ ...rows, items: [0, 2, 1] });
    await expect(evaluate(own, { train, test: others }, { k: 1 })).rejects.toMatchObject({
      code: 'ERR_VALUE',
      message: expect.stringMatching(/test: its items/),
    });
  });

  it('what is no matrix', async () => {
    const given = [[1]] as unknown as typeof test;
    await expect(evaluate(model, { train, test: given }, { k: 1 })).rejects.toMatchObject({ code: 'ERR_ARGUMENT' });
  });

  it('to go on after an abort', async () => {
    const stop = new AbortController();
    const reason = new Error('enough');
    const slow = {
      ...model,
      topKRows: async () => {
        stop.abort(reason);
        return { ids: Int32Array.of(0, 1), scores: Float32Array.of(1, 1) };
      },
    };
    await expect(evaluate(slow, data, { k: 1, signal: stop.signal })).rejects.toBe(reason);
    await expect(evaluate(model, data, { k: 1, signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
  });

  it('lists with items that do not exist', async () => {
    const wrong = { ...model, topKRows: async () => ({ ids: Int32Array.of(0, 7), scores: Float32Array.of(1, 1) }) };
    await expect(evaluate(wrong, data, { k: 1 })).rejects.toMatchObject({ code: 'ERR_RANGE' });
  });
});
