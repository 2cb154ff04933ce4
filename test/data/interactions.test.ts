import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { CsrMatrix, type Duplicates, type Id, Interactions } from '../../lib/index.js';
import { triplets } from './triplets.js';

const columns = { user: 'u', item: 'i', value: 'v' };
const rowsOf = (...rows: [u: unknown, i: unknown, v: unknown][]) => rows.map(([u, i, v]) => ({ u, i, v }));

describe('ids', () => {
  it.each<[string, Id[]]>([
    ['numbers', [3, 1.5, -7]],
    ['bigints beyond 2^53', [2n ** 53n + 1n, 2n ** 53n, -(2n ** 70n)]],
    ['strings', ['é', "it's", 'a "b"\n\tc', '', '🦉']],
  ])('%s come back as they were, in the order of first appearance', async (_name, ids) => {
    const data = await Interactions.fromArrays({ users: ids, items: ids });
    expect([...data.users]).toEqual(ids);
    expect([...data.items]).toEqual(ids);
    expect(ids.map((id) => data.users.indexOf(id))).toEqual(ids.map((_, row) => row));
  });

  it.each([
    ['users', { users: [1, '1'], items: [1, 2] }, /users\[1\]: expected a number, .*received '1'/],
    ['items', { users: [1, 2], items: [1n, 1] }, /items\[1\]: expected a bigint, .*received 1/],
    ['objects', { users: [{}], items: [1] }, /users\[0\]: expected a number, bigint or string/],
  ])('refuses mixed types: %s', async (_name, arrays, message) => {
    await expect(Interactions.fromArrays(arrays as never)).rejects.toMatchObject({
      code: 'ERR_ARGUMENT',
      message: expect.stringMatching(message),
    });
  });
});

describe('sources', () => {
  const expected = [
    { user: 'a', item: 2, value: 5 },
    { user: 'b', item: 1, value: 3 },
  ];

  it('takes objects, arrays, iterables and async iterables', async () => {
    const objects = rowsOf(['a', 2, 5], ['b', 1, 3]);
    async function* later() {
      yield* objects;
    }
    for (const rows of [objects, new Set(objects), objects.values(), later()])
      expect(await triplets(await Interactions.from(rows, columns))).toEqual(expected);
    const arrays = objects.map(({ u, i, v }) => [v, u, i]);
    expect(await triplets(await Interactions.from(arrays, { user: 1, item: 2, value: 0 }))).toEqual(expected);
  });

  it('takes typed arrays, and does not see later changes', async () => {
    const users = BigInt64Array.of(7n, 8n);
    const values = Float64Array.of(1.5, 2.5);
    const made = Interactions.fromArrays({ users, items: Int32Array.of(4, 4), values });
    users.fill(0n);
    structuredClone(values, { transfer: [values.buffer] });
    expect(await triplets(await made)).toEqual([
      { user: 7n, item: 4, value: 1.5 },
      { user: 8n, item: 4, value: 2.5 },
    ]);
  });

  it('takes numbers, bigints and dates as times', async () => {
    const times = [1.5, 2n, new Date(3)];
    const data = await Interactions.fromArrays({ users: [1, 1, 1], items: [1, 2, 3], times });
    expect(await data.times?.data()).toEqual(Float64Array.of(1.5, 2, 3));
  });

  it('takes empty input', async () => {
    for (const data of [
      await Interactions.from([], columns),
      await Interactions.fromArrays({ users: [], items: [] }),
    ]) {
      expect([data.size, data.users.size, data.items.size]).toEqual([0, 0, 0]);
      expect((await data.matrix()).shape).toEqual([0, 0]);
    }
  });

  it('leaves the event loop free and stops on abort', async () => {
    const abort = new AbortController();
    let turns = 0;
    const ticking = setInterval(() => ++turns === 3 && abort.abort(new Error('enough')), 1);
    function* endless() {
      for (let n = 0; ; n++) yield { u: n % 1000, i: n % 777, v: 1 };
    }
    await expect(Interactions.from(endless(), { ...columns, signal: abort.signal })).rejects.toThrow('enough');
    clearInterval(ticking);
    expect(turns).toBeGreaterThanOrEqual(3);
  });

  it('keeps more rows than one block of a column', async () => {
    const n = 200_000;
    const users = Int32Array.from({ length: n }, (_, j) => j % 1000);
    const items = Int32Array.from({ length: n }, (_, j) => Math.floor(j / 1000));
    const data = await Interactions.fromArrays({ users, items, values: items });
    expect(data.size).toBe(n);
    expect(await data.values.data()).toEqual(Float32Array.from({ length: n }, (_, j) => j % 200));
  });
});

describe('cleaning', () => {
  const dirty = [
    { u: null, i: 1, v: 1, t: 1 },
    { u: 1, v: 1, t: 1 },
    { u: 1, i: 1, v: undefined, t: 1 },
    { u: 1, i: 1, v: 1, t: null },
    { u: 1, i: 1, v: Number.NaN, t: 1 },
    { u: 1, i: 1, v: Infinity, t: 1 },
    { u: 1, i: 1, v: 1e39, t: 1 },
    { u: 1, i: 1, v: 1, t: Infinity },
    { u: 1, i: 1, v: -1, t: 1 },
    { u: 1, i: 1, v: 6, t: 1 },
    { u: Number.NaN, i: 1, v: 1, t: 1 },
    { u: 2, i: 3, v: 5, t: 9 },
  ];
  const options = { ...columns, time: 't', minValue: 0, maxValue: 5 };

  it('counts what it drops by reason', async () => {
    const data = await Interactions.from(dirty, { ...options, invalid: 'drop' });
    expect(data.report).toMatchObject({ read: 12, kept: 1 });
    expect(data.report.dropped).toMatchObject({
      missingUser: 2,
      missingItem: 1,
      missingValue: 1,
      missingTime: 1,
      notFinite: 4,
      outOfRange: 2,
      duplicate: 0,
    });
    expect(await triplets(data)).toEqual([{ user: 2, item: 3, value: 5, time: 9 }]);
    expect([...data.users]).toEqual([2]);
  });

  it.each(dirty.slice(0, -1).map((row, j) => [j, row] as const))('refuses invalid row %i by name', async (_j, row) => {
    const code = expect.stringMatching(/^ERR_(VALUE|RANGE)$/);
    const message = expect.stringMatching(/^interaction 1 .*pass invalid: 'drop'/);
    await expect(Interactions.from([dirty[11], row], options)).rejects.toMatchObject({ code, message });
  });

  it.each<[Duplicates | undefined, number]>([
    ['last', 2],
    ['first', 4],
    ['sum', 15],
    ['max', 9],
    [undefined, 2],
  ])('merges duplicates: %s', async (duplicates, value) => {
    const rows = rowsOf([1, 1, 4], [1, 2, 8], [1, 1, 9], [2, 1, 7], [1, 1, 2]);
    const data = await Interactions.from(rows, { ...columns, duplicates });
    const kept = (await triplets(data)).find((t) => t.user === 1 && t.item === 1);
    expect(kept?.value).toBe(value);
    expect(data.report).toMatchObject({ read: 5, kept: 3, dropped: { duplicate: 2 } });
  });

  it('goes by time where there are times, then by input order', async () => {
    const arrays = { users: [1, 1, 1], items: [1, 1, 1], values: [1, 2, 3], times: [5, 5, 4] };
    for (const [duplicates, value] of [
      ['last', 2],
      ['first', 3],
    ] as const)
      expect((await triplets(await Interactions.fromArrays(arrays, { duplicates })))[0].value).toBe(value);
  });

  it('counts repetitions when there are no values', async () => {
    const data = await Interactions.fromArrays({ users: [1, 1, 2], items: [5, 5, 5] });
    expect(await data.values.data()).toEqual(Float32Array.of(2, 1));
  });

  it('refuses duplicates when asked', async () => {
    const made = Interactions.fromArrays({ users: [1, 1], items: [5, 5] }, { duplicates: 'refuse' });
    await expect(made).rejects.toMatchObject({
      code: 'ERR_VALUE',
      message: expect.stringMatching(/^duplicates: user row 0/),
    });
  });

  it('keeps values from the threshold on, as 1, after merging', async () => {
    const rows = rowsOf([1, 1, 4], [1, 2, 3], [2, 1, 2], [2, 1, 2]);
    const data = await Interactions.from(rows, { ...columns, threshold: 4, duplicates: 'sum' });
    expect(await triplets(data)).toEqual([
      { user: 1, item: 1, value: 1 },
      { user: 2, item: 1, value: 1 },
    ]);
    expect(data.report.dropped).toMatchObject({ duplicate: 1, belowThreshold: 1 });
  });

  it('peels users and items to the largest set where all have enough', async () => {
    const pair = fc.tuple(fc.integer({ min: 0, max: 12 }), fc.integer({ min: 0, max: 9 }));
    const minimum = fc.integer({ min: 0, max: 4 });
    await fc.assert(
      fc.asyncProperty(
        fc.uniqueArray(pair, { selector: String, maxLength: 60 }),
        minimum,
        minimum,
        async (pairs, u, i) => {
          let left = pairs;
          for (let before = -1; before !== left.length; ) {
            before = left.length;
            left = left.filter(([user]) => left.filter((p) => p[0] === user).length >= u);
            left = left.filter(([, item]) => left.filter((p) => p[1] === item).length >= i);
          }
          const arrays = { users: pairs.map((p) => p[0]), items: pairs.map((p) => p[1]) };
          const data = await Interactions.fromArrays(arrays, { minUserCount: u, minItemCount: i });
          const kept = (await triplets(data)).map((t) => [t.user, t.item] as [number, number]);
          expect(kept.map(String).sort()).toEqual(left.map(String).sort());
          expect(data.users.size).toBe(new Set(left.map((p) => p[0])).size);
          expect(data.items.size).toBe(new Set(left.map((p) => p[1])).size);
          expect(data.report.dropped.belowMinCount).toBe(pairs.length - left.length);
        },
      ),
    );
  });

  it('gives given ids their rows', async () => {
    const train = await Interactions.fromArrays({ users: ['a', 'b', 'c'], items: [10, 20, 30] });
    const rows = { users: ['c', 'z', 'a'], items: [10, 20, 99] };
    const test = await Interactions.fromArrays(rows, { users: train.users, items: train.items, invalid: 'drop' });
    expect(test.users).toBe(train.users);
    expect(await triplets(test)).toEqual([{ user: 'c', item: 10, value: 1 }]);
    expect(test.report.dropped).toMatchObject({ unknownUser: 1, unknownItem: 1 });
    expect((await test.matrix()).shape).toEqual([3, 3]);
    await expect(Interactions.fromArrays(rows, { users: train.users })).rejects.toThrow(/interaction 1 names a user/);
  });
});

describe('bad input', () => {
  it.each([
    ['ragged', { users: [1, 2], items: [1] }, 'ERR_SHAPE', /^items: expected 2 entries/],
    ['ragged values', { users: [1], items: [1], values: [1, 2] }, 'ERR_SHAPE', /^values: expected 1 entries/],
    ['no array', { users: 5, items: [1] }, 'ERR_ARGUMENT', /^users: expected an array/],
    ['text as value', { users: [1], items: [1], values: ['4'] }, 'ERR_ARGUMENT', /^values\[0\]: expected a number/],
  ])('%s', async (_name, arrays, code, message) => {
    const error = { code, message: expect.stringMatching(message) };
    await expect(Interactions.fromArrays(arrays as never)).rejects.toMatchObject(error);
  });

  it('a detached typed array', async () => {
    const users = Int32Array.of(1, 2);
    structuredClone(users, { transfer: [users.buffer] });
    const error = { code: 'ERR_ARGUMENT', message: expect.stringMatching(/^users: .*detached/) };
    await expect(Interactions.fromArrays({ users, items: [1, 2] })).rejects.toMatchObject(error);
  });

  it('a column that no row has, and rows that are none', async () => {
    await expect(Interactions.from([{ u: 1, i: 1 }], columns)).rejects.toThrow("value: none of the 1 rows has 'v'");
    await expect(Interactions.from([5], columns)).rejects.toThrow('rows[0]: expected an object or an array');
    await expect(Interactions.from(5 as never, columns)).rejects.toThrow('rows: expected an iterable');
    await expect(Interactions.from([], { item: 'i' } as never)).rejects.toThrow(
      'user: expected the name of a property',
    );
  });

  it.each([
    [{ minValue: 2, maxValue: 1 }, 'minValue'],
    [{ minValue: Number.NaN }, 'minValue'],
    [{ invalid: 'ignore' }, 'invalid'],
    [{ duplicates: 'mean' }, 'duplicates'],
    [{ minUserCount: -1 }, 'minUserCount'],
    [{ minItemCount: 1.5 }, 'minItemCount'],
    [{ users: ['a'] }, 'users'],
  ])('the option %o', async (options, name) => {
    const error = { code: 'ERR_ARGUMENT', message: expect.stringMatching(new RegExp(`^${name}: `)) };
    await expect(Interactions.fromArrays({ users: [1], items: [1] }, options as never)).rejects.toMatchObject(error);
  });
});

describe('matrix', () => {
  it('is users by items, cached, and rebuilt after an error only', async () => {
    const data = await Interactions.from(rowsOf(['a', 9, 5], ['b', 7, 3], ['a', 7, 2]), columns);
    const matrix = await data.matrix();
    expect(matrix.shape).toEqual([2, 2]);
    expect(await matrix.indptr.data()).toEqual(BigInt64Array.of(0n, 2n, 3n));
    expect(await matrix.indices.data()).toEqual(Int32Array.of(0, 1, 1));
    expect(await matrix.values.data()).toEqual(Float32Array.of(5, 2, 3));
    expect(await data.matrix()).toBe(matrix);
  });

  it.each(['sum', 'first', 'last', 'max'] as const)(
    'from triplets in any order, duplicates: %s',
    async (duplicates) => {
      const entry = fc.tuple(
        fc.integer({ min: 0, max: 6 }),
        fc.integer({ min: 0, max: 8 }),
        fc.integer({ min: -9, max: 9 }),
      );
      await fc.assert(
        fc.asyncProperty(fc.array(entry, { maxLength: 200 }), async (entries) => {
          const cells = new Map<number, number>();
          for (const [r, c, v] of entries) {
            const before = cells.get(r * 9 + c);
            const merged = { sum: (before ?? 0) + v, first: before ?? v, last: v, max: Math.max(before ?? v, v) };
            cells.set(r * 9 + c, merged[duplicates]);
          }
          const matrix = await CsrMatrix.fromCoo(
            Int32Array.from(entries, (e) => e[0]),
            Int32Array.from(entries, (e) => e[1]),
            Float32Array.from(entries, (e) => e[2]),
            { shape: [7, 9], duplicates },
          );
          const dense = async (m: CsrMatrix) => {
            const [ptr, ids, values] = [await m.indptr.data(), await m.indices.data(), await m.values.data()];
            const out = new Map<string, number>();
            for (let r = 0; r < m.shape[0]; r++)
              for (let j = Number(ptr[r]); j < Number(ptr[r + 1]); j++) out.set(`${r},${ids[j]}`, values[j]);
            return out;
          };
          const order = [...cells].sort(([a], [b]) => a - b);
          expect([...(await dense(matrix))]).toEqual(order.map(([k, v]) => [`${Math.floor(k / 9)},${k % 9}`, v]));
          const flipped = [...(await dense(await matrix.transpose()))].map(([k, v]) => [
            k.split(',').reverse().join(),
            v,
          ]);
          expect(new Map(flipped as [string, number][])).toEqual(await dense(matrix));
          await CsrMatrix.from({
            indptr: await matrix.indptr.data(),
            indices: await matrix.indices.data(),
            values: await matrix.values.data(),
            cols: 9,
          });
        }),
      );
    },
  );
});
