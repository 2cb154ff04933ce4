import fc from 'fast-check';
import { afterEach, describe, expect, it } from 'vitest';
import {
  Interactions,
  kFold,
  type Split,
  setThreads,
  splitLast,
  splitRatio,
  splitTime,
  threads,
} from '../../lib/index.js';
import { triplets } from './triplets.js';

const before = threads();
afterEach(() => setThreads(before));

const event = fc.tuple(
  fc.integer({ min: 0, max: 9 }),
  fc.integer({ min: 0, max: 30 }),
  fc.integer({ min: 0, max: 20 }),
);
const events = fc.uniqueArray(event, { selector: ([u, i]) => `${u},${i}`, minLength: 1, maxLength: 120 });
const seeds = fc.integer();
const make = (list: readonly (readonly [number, number, number])[]) =>
  Interactions.from(list, { user: 0, item: 1, time: 2 });

const keys = async (data: Interactions) => (await triplets(data)).map((t) => `${t.user},${t.item},${t.time}`);
const perUser = async (data: Interactions) => {
  const counts = new Map<unknown, number>();
  for (const { user } of await triplets(data)) counts.set(user, (counts.get(user) ?? 0) + 1);
  return counts;
};

/** Both parts together are the whole, they share nothing, and rows mean the same. */
async function expectPartition(data: Interactions, { train, test }: Split) {
  const [whole, a, b] = await Promise.all([keys(data), keys(train), keys(test)]);
  expect([...a, ...b].sort()).toEqual([...whole].sort());
  expect(a.filter((key) => b.includes(key))).toEqual([]);
  for (const part of [train, test]) {
    expect(part.users).toBe(data.users);
    expect(part.items).toBe(data.items);
    expect((await part.matrix()).shape).toEqual([data.users.size, data.items.size]);
  }
}

describe('splitRatio', () => {
  it('gives each user the share, and keeps one in train', async () => {
    const share = fc.double({ min: 0.01, max: 0.99, noNaN: true });
    await fc.assert(
      fc.asyncProperty(events, share, seeds, async (list, test, seed) => {
        const data = await make(list);
        const split = await splitRatio(data, { test, seed });
        await expectPartition(data, split);
        const tested = await perUser(split.test);
        for (const [user, n] of await perUser(data))
          expect(tested.get(user) ?? 0).toBe(Math.min(Math.floor(test * n + 0.5), n - 1));
      }),
      { numRuns: 50 },
    );
  });

  it('depends on the seed alone, not on threads', async () => {
    const list = Array.from({ length: 20_000 }, (_, j) => [j % 997, Math.floor(j / 997), j] as const);
    const data = await make(list);
    for (const by of ['user', 'interaction'] as const) {
      const drawn = [];
      for (const count of [1, 2, 4]) {
        setThreads(count);
        drawn.push(await keys((await splitRatio(data, { test: 0.2, seed: 3, by })).test));
      }
      expect(drawn[1]).toEqual(drawn[0]);
      expect(drawn[2]).toEqual(drawn[0]);
      expect(await keys((await splitRatio(data, { test: 0.2, seed: 4, by })).test)).not.toEqual(drawn[0]);
      expect(Math.abs(drawn[0].length / data.size - 0.2)).toBeLessThan(0.02);
    }
  });

  it('draws every interaction equally often', async () => {
    const data = await make([1, 2, 3, 4].map((item) => [0, item, 0] as const));
    const counts = new Map<string, number>();
    for (let seed = 0; seed < 400; seed++)
      for (const key of await keys((await splitRatio(data, { test: 0.25, seed })).test))
        counts.set(key, (counts.get(key) ?? 0) + 1);
    for (const n of counts.values()) expect(Math.abs(n - 100)).toBeLessThan(40);
    expect(counts.size).toBe(4);
  });
});

describe('splitLast', () => {
  it('leaves out the latest n of users with more', async () => {
    await fc.assert(
      fc.asyncProperty(events, fc.integer({ min: 1, max: 4 }), async (list, n) => {
        const data = await make(list);
        const split = await splitLast(data, { n });
        await expectPartition(data, split);
        for (const user of data.users) {
          const own = list.filter((e) => e[0] === user);
          const sorted = own.map((e, j) => ({ e, j })).sort((a, b) => a.e[2] - b.e[2] || a.j - b.j);
          const wanted = own.length > n ? sorted.slice(-n).map(({ e }) => String(e)) : [];
          const tested = (await triplets(split.test)).filter((t) => t.user === user);
          expect(tested.map((t) => `${t.user},${t.item},${t.time}`)).toEqual(wanted);
        }
      }),
      { numRuns: 50 },
    );
  });

  it('goes by input order without times', async () => {
    const data = await Interactions.fromArrays({ users: [1, 2, 1, 1], items: [9, 9, 3, 5] });
    const { test } = await splitLast(data);
    expect(await triplets(test)).toEqual([{ user: 1, item: 5, value: 1 }]);
  });
});

describe('splitTime', () => {
  it('has no training interaction at or after a tested one', async () => {
    await fc.assert(
      fc.asyncProperty(events, fc.double({ min: 0.05, max: 0.95, noNaN: true }), async (list, ratio) => {
        const data = await make(list);
        const split = await splitTime(data, { ratio });
        await expectPartition(data, split);
        const latest = Math.max(-Infinity, ...(await triplets(split.train)).map((t) => t.time as number));
        for (const t of await triplets(split.test)) expect(t.time).toBeGreaterThan(latest);
        expect(split.test.size).toBeGreaterThan(0);
      }),
      { numRuns: 50 },
    );
  });

  it('splits at a moment', async () => {
    const data = await make([
      [1, 1, 10],
      [1, 2, 20],
      [2, 1, 30],
    ]);
    for (const at of [20, new Date(20)]) expect(await keys((await splitTime(data, { at })).train)).toEqual(['1,1,10']);
  });
});

describe('kFold', () => {
  it('tests each interaction once, and deals each user evenly', async () => {
    await fc.assert(
      fc.asyncProperty(events, fc.integer({ min: 2, max: 5 }), seeds, async (list, k, seed) => {
        const data = await make(list);
        const all: string[] = [];
        const counts: Map<unknown, number>[] = [];
        for await (const split of kFold(data, k, { seed })) {
          await expectPartition(data, split);
          all.push(...(await keys(split.test)));
          counts.push(await perUser(split.test));
        }
        expect(counts.length).toBe(k);
        expect(all.sort()).toEqual((await keys(data)).sort());
        for (const user of data.users) {
          const sizes = counts.map((c) => c.get(user) ?? 0);
          expect(Math.max(...sizes) - Math.min(...sizes)).toBeLessThanOrEqual(1);
        }
      }),
      { numRuns: 25 },
    );
  });
});

describe('bad input', () => {
  it('is refused by name', async () => {
    const timeless = await Interactions.fromArrays({ users: [1], items: [1] });
    const data = await make([[1, 1, 1]]);
    const refused = (code: string, name: string) => ({
      code,
      message: expect.stringMatching(new RegExp(`^${name}: `)),
    });
    for (const test of [0, 1, Number.NaN])
      await expect(splitRatio(data, { test })).rejects.toMatchObject(refused('ERR_RANGE', 'test'));
    await expect(splitRatio(data, { test: 0.5, seed: 0.5 })).rejects.toMatchObject(refused('ERR_ARGUMENT', 'seed'));
    await expect(splitRatio(data, { test: 0.5, by: 'item' as never })).rejects.toMatchObject(
      refused('ERR_ARGUMENT', 'by'),
    );
    await expect(splitLast(data, { n: 0 })).rejects.toMatchObject(refused('ERR_RANGE', 'n'));
    for (const bad of [{}, null, undefined] as never[]) {
      await expect(splitRatio(bad, { test: 0.5 })).rejects.toMatchObject(refused('ERR_ARGUMENT', 'data'));
      await expect(splitLast(bad)).rejects.toMatchObject(refused('ERR_ARGUMENT', 'data'));
      await expect(kFold(bad, 3).next()).rejects.toMatchObject(refused('ERR_ARGUMENT', 'data'));
    }
    await expect(splitTime(timeless, { at: 1 })).rejects.toMatchObject(refused('ERR_ARGUMENT', 'data'));
    await expect(splitTime(data, {})).rejects.toMatchObject(refused('ERR_ARGUMENT', 'options'));
    await expect(splitTime(data, { ratio: 1 })).rejects.toMatchObject(refused('ERR_RANGE', 'ratio'));
    await expect(splitTime(data, { at: Number.NaN })).rejects.toMatchObject(refused('ERR_ARGUMENT', 'at'));
    await expect(kFold(data, 1).next()).rejects.toMatchObject(refused('ERR_RANGE', 'k'));
  });
});
