import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, describe, expect, it } from 'vitest';
import { FlatIndex, type IndexMetric, tensor, type VectorStorage } from '../../lib/index.js';
import { numbers } from '../models/suite.js';
import { ranking } from '../reference/top-k.js';

const dir = mkdtempSync(join(tmpdir(), 'topknot-changes-'));
afterAll(() => rmSync(dir, { recursive: true }));

/** Small integers: every score is exact, in 16 bits too, and many are equal. */
const vector = (next: () => number, d: number) => Float32Array.from({ length: d }, () => Math.round(6 * next()) - 3);
const flat = (rows: readonly Float32Array[]) => Float32Array.from(rows.flatMap((r) => [...r]));

const kinds: [VectorStorage, IndexMetric][] = [
  ['float32', 'innerProduct'],
  ['float32', 'l2'],
  ['float16', 'innerProduct'],
  ['bfloat16', 'l2'],
  ['int8', 'l2'],
];

describe.each(kinds)('%s, %s', (storage, metric) => {
  it('answers as an index made afresh, whatever was added, removed and replaced', async () => {
    const steps = fc.array(
      fc.record({
        kind: fc.constantFrom('add', 'add', 'remove', 'update', 'compact'),
        ids: fc.uniqueArray(fc.nat(60), { maxLength: 20 }),
        seed: fc.nat(),
      }),
      { maxLength: 12 },
    );
    const property = async (script: { kind: string; ids: number[]; seed: number }[]) => {
      const next = numbers(7);
      // In the order in which they were added: what the index must behave like.
      let model = new Map<number, Float32Array>([[1000, vector(next, 3)]]);
      using index = await FlatIndex.from<number>([1000], flat([...model.values()]), { metric, storage });
      const query = vector(next, 3);
      const check = async () => {
        const keys = [...model.keys()];
        expect([index.size, [...index.ids]]).toEqual([keys.length, keys]);
        if (keys.length === 0)
          return expect(await index.search(query)).toEqual({ ids: [], scores: new Float32Array() });
        const exact = ranking(query, [...model.values()], metric as 'l2');
        const options = { k: keys.length, ...(storage === 'int8' ? { exact: true } : {}) };
        const found = await index.search(query, options);
        expect(found.ids).toEqual(exact.map((e) => keys[e.row]));
        expect([...found.scores]).toEqual(exact.map((e) => e.score));
        const deny = keys.filter((_, i) => i % 3 === 0);
        expect(index.searchSync(query, { ...options, filter: { deny } }).ids).toEqual(
          found.ids.filter((id) => !deny.includes(id)),
        );
      };
      for (const { kind, ids, seed } of script) {
        const random = numbers(seed);
        const rows = (list: number[]) => list.map(() => vector(random, 3));
        if (kind === 'remove') {
          const there = ids.filter((id) => model.has(id));
          await index.remove(there);
          for (const id of there) model.delete(id);
        } else if (kind === 'compact') {
          await index.compact();
        } else {
          const chosen = ids.filter((id) => model.has(id) === (kind === 'update'));
          const values = rows(chosen);
          await index[kind as 'add' | 'update'](chosen, flat(values));
          const left = [...model].filter(([id]) => !chosen.includes(id));
          model = new Map([...left, ...chosen.map((id, i) => [id, values[i]!] as const)]);
        }
        await check();
      }
      await index.remove([...model.keys()]);
      model = new Map();
      await check();
    };
    await fc.assert(fc.asyncProperty(steps, property), { numRuns: 15 });
  });
});

it('shows a search the index as it was when it was asked', async () => {
  const [n, d] = [3000, 8];
  const next = numbers(11);
  const rows = Array.from({ length: n }, () => vector(next, d));
  const index = await FlatIndex.from(
    rows.map((_, i) => i),
    flat(rows),
  );
  const queries = Array.from({ length: 8 }, () => vector(next, d));
  let live = new Map(rows.map((r, i) => [i, r]));
  const expected = (model: Map<number, Float32Array>) => {
    const keys = [...model.keys()];
    return queries.map((q) =>
      ranking(q, [...model.values()], 'innerProduct')
        .slice(0, 20)
        .map((e) => keys[e.row]!),
    );
  };
  const pending: Promise<void>[] = [];
  const ask = (filter?: { deny: number[] }) => {
    const before = expected(new Map([...live].filter(([id]) => !filter?.deny.includes(id))));
    pending.push(
      index.search(queries, { k: 20, ...(filter ? { filter } : {}) }).then((found) => {
        expect(found.map((f) => f.ids)).toEqual(before);
      }),
    );
  };
  for (let round = 0; round < 12; round++) {
    const gone = Array.from({ length: 40 }, (_, i) => round * 40 + i);
    const fresh = Array.from({ length: 200 }, (_, i) => 10_000 + round * 200 + i);
    const values = fresh.map(() => vector(next, d));
    ask(); // before: this search and those below must not see what comes next
    const changes = [index.remove(gone), index.add(fresh, flat(values))];
    ask({ deny: [gone[0]!, 2999] });
    await Promise.all(changes);
    live = new Map([...live].filter(([id]) => !gone.includes(id)));
    for (const [i, id] of fresh.entries()) live.set(id, values[i]!);
    ask();
  }
  await Promise.all(pending);
  expect(index.size).toBe(n - 12 * 40 + 12 * 200);
});

it('takes vectors as they were at the call, and changes one after the other', async () => {
  const index = await FlatIndex.from<string>(['a'], Float32Array.of(1));
  const [ids, vectors] = [['b'], Float32Array.of(5)];
  const changes = [index.add(ids, vectors), index.update(['b'], Float32Array.of(7)), index.remove(['a'])];
  ids[0] = 'x';
  vectors[0] = 0;
  await Promise.all(changes);
  expect(index.searchSync([1])).toEqual({ ids: ['b'], scores: Float32Array.of(7) });
});

it('a refused change changes nothing', async () => {
  const index = await FlatIndex.from<string>(['a', 'b'], Float32Array.of(1, 2));
  const signal = AbortSignal.abort(new Error('enough'));
  const cases: [() => Promise<unknown>, string | undefined][] = [
    [() => index.add(['c', 'a'], Float32Array.of(1, 2)), 'ERR_VALUE'],
    [() => index.add(['c', 'c'], Float32Array.of(1, 2)), 'ERR_VALUE'],
    [() => index.add(['c'], Float32Array.of(Number.NaN)), 'ERR_VALUE'],
    [() => index.add(['c'], Float32Array.of(1, 2)), 'ERR_SHAPE'],
    [() => index.add(['c'], tensor([[1, 2]])), 'ERR_SHAPE'],
    [() => index.add(['c'], Uint8Array.of(1)), 'ERR_ARGUMENT'],
    [() => index.add([1 as never], Float32Array.of(1)), 'ERR_ARGUMENT'],
    [() => index.add('c' as never, Float32Array.of(1)), 'ERR_ARGUMENT'],
    [() => index.update(['a', 'c'], Float32Array.of(1, 2)), 'ERR_UNKNOWN_ID'],
    [() => index.remove(['a', 'c']), 'ERR_UNKNOWN_ID'],
    [() => index.remove(['a', 'a']), 'ERR_VALUE'],
    [() => index.remove([1 as never]), 'ERR_ARGUMENT'],
    [() => index.add(['c'], Float32Array.of(1), { sginal: signal } as never), 'ERR_ARGUMENT'],
    [() => index.add(['c'], Float32Array.of(1), { signal }), undefined],
  ];
  for (const [change, code] of cases)
    await expect(change()).rejects.toMatchObject(code ? { name: 'TopknotError', code } : { message: 'enough' });
  expect(index.searchSync([1])).toEqual({ ids: ['b', 'a'], scores: Float32Array.of(2, 1) });
  expect([index.has('a'), index.has('c'), index.size]).toEqual([true, false, 2]);
  expect(() => index.searchSync([1], { k: 3 })).toThrow(expect.objectContaining({ code: 'ERR_RANGE' }));
  await index.remove(['a', 'b']);
  expect(index.searchSync([1])).toEqual({ ids: [], scores: new Float32Array() });
  await expect(index.search([1], { k: 1 })).rejects.toMatchObject({ code: 'ERR_RANGE' });
  await expect(index.save(join(dir, 'empty'))).rejects.toMatchObject({ code: 'ERR_VALUE' });
  await index.add(['z'], Float32Array.of(3));
  expect(index.searchSync([1]).ids).toEqual(['z']);
  index.dispose();
  await expect(index.add(['y'], Float32Array.of(3))).rejects.toMatchObject({ code: 'ERR_DISPOSED' });
});

describe.each(['float32', 'float16', 'bfloat16', 'int8', 'binary'] as const)('a file of %s', (storage) => {
  const d = 16;
  const make = async () => {
    const next = numbers(21);
    const values = (n: number) =>
      storage === 'binary'
        ? Uint8Array.from({ length: (n * d) / 8 }, () => 256 * next())
        : Float32Array.from({ length: n * d }, () => next() - 0.5);
    const metric = storage === 'binary' ? 'hamming' : 'cosine';
    const index = await FlatIndex.from(
      Array.from({ length: 300 }, (_, i) => `v${i}`),
      values(300),
      { storage, metric },
    );
    await index.add(['x', 'y'], values(2));
    await index.remove(['v3', 'x']);
    return { index, queries: Array.from({ length: 9 }, () => values(1)) as Float32Array[] };
  };

  it('answers the same when it is read and when it is mapped', async () => {
    const { index, queries } = await make();
    const path = join(dir, storage);
    await index.save(path);
    const asked = index.searchSync(queries, { k: 40 });
    for (const map of [false, true]) {
      using back = await FlatIndex.load<string>(path, { map });
      expect([back.size, back.storage, back.metric, back.dimensions]).toEqual([300, storage, index.metric, d]);
      expect(back.searchSync(queries, { k: 40 })).toEqual(asked);
      expect(back.searchSync(queries[0]!, { filter: { allow: ['v7', 'x'] } }).ids).toEqual(['v7']);
      await back.remove(['v0']);
      await back.add(['v3'], queries[0]!);
      expect(back.searchSync(queries[0]!, { k: 1 }).ids).toEqual(['v3']);
      await back.compact();
      expect(back.searchSync(queries[0]!, { k: 1 }).ids).toEqual(['v3']);
      const again = `${path}-${map}`;
      await (await FlatIndex.load<string>(path, { map })).save(again);
      expect(readFileSync(again).equals(readFileSync(path))).toBe(true);
    }
  });

  it('is refused when it is cut short, of a later version or not whole', async () => {
    const { index } = await make();
    const path = join(dir, `${storage}-bad`);
    await index.save(path);
    const whole = readFileSync(path);
    const refused = async (bytes: Uint8Array, message: RegExp) => {
      writeFileSync(path, bytes);
      for (const map of [false, true])
        await expect(FlatIndex.load(path, { map })).rejects.toMatchObject({
          code: 'ERR_FORMAT',
          message: expect.stringMatching(message),
        });
    };
    const edited = (from: string, to: string) => {
      const text = whole.toString('latin1');
      expect(text).toContain(from);
      return Buffer.from(text.replace(from, to), 'latin1');
    };
    await refused(whole.subarray(0, whole.length - 1), /cut short/);
    await refused(whole.subarray(0, 100), /cut short/);
    await refused(edited('"version":"2"', '"version":"9"'), /version 9/);
    await refused(edited('"index":"flat"', '"index":"tree"'), /not an index/);
    await refused(edited('"metric":"', '"metrik":"'), /metric/);
    if (storage !== 'binary') await refused(edited('"norms"', '"nirms"'), /norms/);
    if (storage === 'int8') await refused(edited('"scales"', '"scalez"'), /scales/);
  });
});

it('takes ids again after all were removed and it was compacted', async () => {
  const index = await FlatIndex.from(['a', 'b'], new Float32Array([1, 0, 0, 1]));
  await index.remove(['a', 'b']);
  await index.compact();
  await index.add(['c'], new Float32Array([1, 2]));
  expect(index.searchSync(new Float32Array([1, 0]), { k: 1 }).ids).toEqual(['c']);
});
