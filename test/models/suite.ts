import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { CsrMatrix, type Id, type Interactions, type JobOptions, setThreads, threads } from '../../lib/index.js';
import { type AnyModel, interactionsOf, rejects, triplets } from './any-model.js';
import { learningTests } from './learning-suite.js';

export { type AnyModel, interactionsOf, numbers, triplets } from './any-model.js';

const idTypes: Record<string, (n: number) => Id> = {
  string: (n) => `id ${n} ü`,
  number: (n) => n * 1.5 - 7,
  bigint: (n) => 2n ** 60n + BigInt(n),
  'bigint beyond 64 bits': (n) => 2n ** 80n - BigInt(n),
};

/** The tests that every model passes. `load` reads what `save` wrote. */
export function modelSuite(
  name: string,
  make: () => AnyModel,
  load: (path: string, options?: JobOptions) => Promise<AnyModel>,
  { seeded = true, needsHistory = false, explainDigits = 4 } = {},
): void {
  const [userCount, itemCount] = [40, 70];
  const rows = triplets(
    userCount,
    itemCount,
    (u) => `u${u}`,
    (i) => `i${i}`,
  );
  const seenBy = (user: Id) => rows.filter((r) => r[0] === user).map((r) => r[1]);
  const dir = mkdtempSync(join(tmpdir(), 'topknot-models-'));
  afterAll(() => rmSync(dir, { recursive: true }));

  describe(name, () => {
    let model: AnyModel;
    let data: Interactions;
    beforeAll(async () => {
      data = await interactionsOf(rows);
      model = make();
      await model.fit(data);
    });

    it('recommends what is not seen, best first, all there is', async () => {
      for (const user of ['u0', 'u7', 'u39']) {
        const seen = seenBy(user);
        const list = await model.recommend(user, { k: itemCount });
        expect(list.length).toBe(itemCount - seen.length);
        expect(new Set(list.map((r) => r.item)).size).toBe(list.length);
        expect(list.filter((r) => seen.includes(r.item))).toEqual([]);
        expect(list.map((r) => r.score)).toEqual(list.map((r) => r.score).sort((a, b) => b - a));
        expect((await model.recommend(user, { k: itemCount, excludeSeen: false })).length).toBe(itemCount);
        expect(await model.recommend(user, { k: 3 })).toEqual(list.slice(0, 3));
        expect((await model.recommend(user)).length).toBe(10);
      }
    });

    it('filters before selection', async () => {
      const all = await model.recommend('u3', { k: itemCount, excludeSeen: false });
      const deny = all.slice(0, 20).map((r) => r.item);
      expect(await model.recommend('u3', { k: 5, excludeSeen: false, deny })).toEqual(all.slice(20, 25));
      const allow = all.slice(-4).map((r) => r.item);
      expect(await model.recommend('u3', { k: 10, excludeSeen: false, allow })).toEqual(all.slice(-4));
      expect(await model.recommend('u3', { excludeSeen: false, allow, deny: new Set(allow.slice(1)) })).toEqual([
        all.at(-4),
      ]);
      expect(await model.recommend('u3', { allow: [] })).toEqual([]);
      expect(await model.recommend('u3', { k: 5, excludeSeen: false, deny: ['unheard of'] })).toEqual(all.slice(0, 5));
    });

    it('answers a batch, a single user and the blocking twin alike', async () => {
      const users = ['u5', 'u0', 'u5', 'u31'];
      const batch = await model.recommend(users, { k: 7, deny: ['i3'] });
      expect(batch.length).toBe(4);
      for (const [i, user] of users.entries()) {
        expect(await model.recommend(user, { k: 7, deny: ['i3'] })).toEqual(batch[i]);
        expect(model.recommendSync(user, { k: 7, deny: ['i3'] })).toEqual(batch[i]);
      }
      expect(await model.recommend([])).toEqual([]);
    });

    it('recommends to a visitor by history', async () => {
      const history = ['i1', { item: 'i2', weight: 2 }, 'i5'];
      const list = await model.recommend({ history }, { k: itemCount });
      expect(list.length).toBe(itemCount - 3);
      expect(list.map((r) => r.item)).not.toContain('i2');
      expect(model.recommendSync({ history }, { k: itemCount })).toEqual(list);
    });

    learningTests({ model: () => model, make, load, data: () => data, rows, dir, explainDigits });

    it('scores as it ranks', async () => {
      const list = await model.recommend('u9', { k: 12, excludeSeen: false });
      for (const { item, score } of list) expect(await model.score('u9', item)).toBeCloseTo(score, 5);
      const users = Int32Array.from({ length: 12 }, () => model.users.indexOf('u9'));
      const items = Int32Array.from(list, (r) => model.items.indexOf(r.item));
      const pairs = await model.scorePairs(users, items);
      for (const [i, { score }] of list.entries()) expect(pairs[i]).toBeCloseTo(score, 5);
    });

    it('answers by row number as by id', async () => {
      const list = await model.recommend(['u2', 'u1'], { k: 5 });
      const rows = Int32Array.of(model.users.indexOf('u2'), model.users.indexOf('u1'));
      const found = await model.topKRows(rows, 5, { seen: await data.matrix(), seenRows: rows });
      expect(Array.from(found.ids, (row) => model.items.at(row))).toEqual(list.flat().map((r) => r.item));
      expect([...found.scores]).toEqual(list.flat().map((r) => r.score));
    });

    it('saves and loads, byte for byte', async () => {
      const path = join(dir, `${name}.safetensors`);
      await model.save(path);
      const back = await load(path);
      const everyone = [...model.users];
      expect([...back.users]).toEqual(everyone);
      expect(await back.recommend(everyone, { k: itemCount })).toEqual(
        await model.recommend(everyone, { k: itemCount }),
      );
      await back.save(join(dir, 'again.safetensors'));
      expect(readFileSync(join(dir, 'again.safetensors')).equals(readFileSync(path))).toBe(true);
      await expect(model.save(join(dir, 'no such folder', 'x'))).rejects.toMatchObject({ code: 'ERR_IO' });
    });

    it('refuses files that are not such a model', async () => {
      const path = join(dir, 'whole.safetensors');
      await model.save(path);
      const whole = readFileSync(path);
      const broken = join(dir, 'broken.safetensors');
      for (const bytes of [whole.subarray(0, whole.length - 8), whole.subarray(0, 40), Buffer.from('not a model')]) {
        writeFileSync(broken, bytes);
        await expect(load(broken)).rejects.toMatchObject({ code: 'ERR_FORMAT' });
      }
      // The same file under another model's name, and with an item row out of range.
      const text = whole.toString('latin1');
      writeFileSync(broken, Buffer.from(text.replace(/"model":"\w/, '"model":"x'), 'latin1'));
      await expect(load(broken)).rejects.toMatchObject({ code: 'ERR_FORMAT' });
      const header = JSON.parse(whole.toString('utf8', 8, 8 + Number(whole.readBigUInt64LE(0))));
      const hostile = Buffer.from(whole);
      const at = 8 + Number(whole.readBigUInt64LE(0)) + header['interactions.indices'].data_offsets[0];
      hostile.writeInt32LE(1 << 20, at);
      writeFileSync(broken, hostile);
      await expect(load(broken)).rejects.toMatchObject({ code: 'ERR_FORMAT' });
      // With an option that no model has.
      const metadata = { ...header.__metadata__ };
      metadata.options = JSON.stringify({ ...JSON.parse(metadata.options), nonsense: 1 });
      const renamed = Buffer.from(JSON.stringify({ ...header, __metadata__: metadata }));
      const size = Buffer.alloc(8);
      size.writeBigUInt64LE(BigInt(renamed.length));
      writeFileSync(broken, Buffer.concat([size, renamed, whole.subarray(8 + Number(whole.readBigUInt64LE(0)))]));
      await expect(load(broken)).rejects.toMatchObject({ code: 'ERR_FORMAT', message: /options that no model has/ });
      // Factors that are no numbers.
      for (const [name, part] of Object.entries<{ dtype: string; data_offsets: number[] }>(header)) {
        if (part.dtype !== 'F32' || name.startsWith('interactions.')) continue;
        const poisoned = Buffer.from(whole);
        poisoned.writeFloatLE(Number.NaN, 8 + Number(whole.readBigUInt64LE(0)) + part.data_offsets[0]!);
        writeFileSync(broken, poisoned);
        await expect(load(broken)).rejects.toMatchObject({ code: 'ERR_FORMAT' });
      }
      await expect(load(join(dir, 'nothing here'))).rejects.toMatchObject({ code: 'ERR_IO' });
    });

    it.each(Object.entries(idTypes))('keeps ids: %s', async (type, id) => {
      const other = await interactionsOf(triplets(12, 15, id, (i) => id(i + 100)));
      const named = make();
      await named.fit(other);
      const list = await named.recommend(id(4), { k: 5 });
      expect(list.length).toBeGreaterThan(0);
      for (const { item } of list) expect(typeof item).toBe(typeof id(0));
      const path = join(dir, `${type}.safetensors`);
      await named.save(path);
      const back = await load(path);
      expect([...back.items]).toEqual([...other.items]);
      expect(await back.recommend(id(4), { k: 5 })).toEqual(list);
    });

    it('takes a bare matrix, its row numbers as ids', async () => {
      const matrix = await CsrMatrix.fromCoo(Int32Array.of(0, 1, 1, 2), Int32Array.of(3, 0, 3, 1), undefined, {
        shape: [3, 5],
      });
      const bare = make();
      await bare.fit(matrix);
      matrix.dispose();
      const list = await bare.recommend(1, { k: 5 });
      expect(list.map((r) => r.item).sort()).toEqual([1, 2, 4]);
      const path = join(dir, 'bare.safetensors');
      await bare.save(path);
      expect(await (await load(path)).recommend(1, { k: 5 })).toEqual(list);
      await expect(bare.recommend(3)).rejects.toMatchObject({ code: 'ERR_UNKNOWN_ID' });
    });

    it('gives the same bytes at any thread count', async () => {
      const before = threads();
      const runs: Buffer[] = [];
      try {
        for (const count of [1, 2, 4]) {
          setThreads(count);
          const again = make();
          await again.fit(data);
          const path = join(dir, 'threads.safetensors');
          await again.save(path);
          const lists = await again.recommend([...again.users], { k: 20 });
          runs.push(Buffer.concat([readFileSync(path), Buffer.from(JSON.stringify(lists))]));
        }
      } finally {
        setThreads(before);
      }
      expect(runs[1]!.equals(runs[0]!)).toBe(true);
      expect(runs[2]!.equals(runs[0]!)).toBe(true);
    });

    it('reports progress that only rises', async () => {
      const heard: number[] = [];
      let total = 0;
      await make().fit(data, {
        onProgress: (p) => {
          heard.push(p.done);
          total = p.total;
        },
      });
      expect(heard.length).toBeGreaterThan(0);
      expect(heard).toEqual([...heard].sort((a, b) => a - b));
      expect(heard.at(-1)).toBeLessThanOrEqual(total);
    });

    it('keeps the last fit through an abort, a failure and a second fit', async () => {
      const kept = make();
      await kept.fit(data);
      const before = await kept.recommend('u1');
      const other = await interactionsOf(triplets(30, 30));
      await expect(kept.fit(other, { signal: AbortSignal.abort(new Error('enough')) })).rejects.toThrow('enough');
      const controller = new AbortController();
      const running = kept.fit(other, { signal: controller.signal });
      await expect(kept.fit(data)).rejects.toMatchObject({ code: 'ERR_BUSY' });
      controller.abort(new Error('changed my mind'));
      await expect(running).rejects.toThrow('changed my mind');
      const stopped = kept.fit(other, {
        onProgress: () => {
          throw new Error('from the listener');
        },
      });
      await expect(stopped).rejects.toThrow('from the listener');
      expect(await kept.recommend('u1')).toEqual(before);
      await kept.fit(other);
      await expect(kept.recommend('u1')).rejects.toMatchObject({ code: 'ERR_UNKNOWN_ID' });
    });

    it('says that it has not been fitted', async () => {
      const fresh = make();
      expect(fresh.isFitted).toBe(false);
      const code = { code: 'ERR_NOT_FITTED' };
      await expect(fresh.recommend('u1')).rejects.toMatchObject(code);
      expect(() => fresh.recommendSync('u1')).toThrow(expect.objectContaining(code));
      await expect(fresh.score('u1', 'i1')).rejects.toMatchObject(code);
      await expect(fresh.save(join(dir, 'x'))).rejects.toMatchObject(code);
      expect(() => fresh.users).toThrow(expect.objectContaining(code));
      await rejects(code, fresh.foldIn && (() => fresh.foldIn!(['i1'])));
      await rejects(code, fresh.explain && (() => fresh.explain!('u1', 'i1')));
      await rejects(code, fresh.similarItems && (() => fresh.similarItems!('i1')));
      await rejects(code, fresh.similarUsers && (() => fresh.similarUsers!('u1')));
      await rejects(code, fresh.partialFit && (() => fresh.partialFit!(data)));
      await rejects(code, () => fresh.topKRows(Int32Array.of(0), 1));
      await fresh.fit(data);
      fresh.dispose();
      await expect(fresh.recommend('u1')).rejects.toMatchObject(code);
    });

    it('does without the interactions that it was fitted on', async () => {
      const own = await interactionsOf(rows);
      const other = make();
      await other.fit(own);
      await own.matrix();
      own.dispose();
      expect(await other.recommend('u1')).toEqual(await model.recommend('u1'));
    });

    const bad: [string, string, RegExp, (m: AnyModel) => Promise<unknown>][] = [
      ['k of 0', 'ERR_RANGE', /^k: expected 1 to 70, .* received 0/, (m) => m.recommend('u1', { k: 0 })],
      ['k below 0', 'ERR_RANGE', /^k: /, (m) => m.recommend('u1', { k: -3 })],
      ['k over the catalogue', 'ERR_RANGE', /^k: .* 71/, (m) => m.recommend('u1', { k: 71 })],
      ['k of 1.5', 'ERR_ARGUMENT', /^k: .* 1.5/, (m) => m.recommend('u1', { k: 1.5 })],
      ['k by row over the catalogue', 'ERR_RANGE', /^k: /, (m) => m.topKRows(Int32Array.of(1), 71)],
      ['unknown user', 'ERR_UNKNOWN_ID', /^user: 'nobody'/, (m) => m.recommend('nobody')],
      ['unknown user of a batch', 'ERR_UNKNOWN_ID', /^users\[1\]: 'x'/, (m) => m.recommend(['u1', 'x'])],
      ['id of another type', 'ERR_UNKNOWN_ID', /^user: 1 /, (m) => m.recommend(1)],
      ['unknown item', 'ERR_UNKNOWN_ID', /^item: 'x'/, (m) => m.score('u1', 'x')],
      ['deny of another type', 'ERR_ARGUMENT', /^deny: .*string.*number/, (m) => m.recommend('u1', { deny: [1] })],
      ['allow that is one string', 'ERR_ARGUMENT', /^allow: /, (m) => m.recommend('u1', { allow: 'i1' })],
      ['empty history', 'ERR_VALUE', /^history: /, (m) => m.recommend({ history: [] })],
      [
        'unknown item in a history',
        'ERR_UNKNOWN_ID',
        /^history\[1\]: 'x'/,
        (m) => m.recommend({ history: ['i1', 'x'] }),
      ],
      [
        'weight that is not positive',
        'ERR_VALUE',
        /^history\[0\].weight: /,
        (m) => m.recommend({ history: [{ item: 'i1', weight: Number.NaN }] }),
      ],
      [
        'weight beyond float32',
        'ERR_VALUE',
        /^history\[1\].weight: /,
        (m) => m.recommend({ history: ['i1', { item: 'i2', weight: 1e300 }] }),
      ],
      [
        'an option that does not exist',
        'ERR_ARGUMENT',
        /^options.exclude: no such/,
        (m) => m.recommend('u1', { exclude: ['i1'] } as never),
      ],
      ['options that are a number', 'ERR_ARGUMENT', /^options: .* 5/, (m) => m.recommend('u1', 5 as never)],
      ['a signal that is none', 'ERR_ARGUMENT', /^signal: .* 5/, (m) => m.recommend('u1', { signal: 5 as never })],
      ['a listener that is none', 'ERR_ARGUMENT', /^onProgress: .* 5/, (m) => m.fit(data, { onProgress: 5 as never })],
      [
        'many users at once, synchronously',
        'ERR_ARGUMENT',
        /^user: .*an array/,
        async (m) => m.recommendSync(['u1', 'u2'] as never),
      ],
      [
        'a misspelt part of a history',
        'ERR_ARGUMENT',
        /^history\[1\].wieght: no such option; known are item, weight/,
        (m) => m.recommend({ history: ['i1', { item: 'i2', wieght: 5 } as never] }),
      ],
      [
        'a weight that is a symbol',
        'ERR_VALUE',
        /^history\[0\].weight: expected .*Symbol/,
        (m) => m.recommend({ history: [{ item: 'i1', weight: Symbol() as never }] }),
      ],
      [
        'a weight that is a string',
        'ERR_VALUE',
        /^history\[0\].weight: .* received '5'/,
        (m) => m.recommend({ history: [{ item: 'i1', weight: '5' as never }] }),
      ],
      ['rows that are missing', 'ERR_ARGUMENT', /^userRows: .* undefined/, (m) => m.topKRows(undefined as never, 2)],
      ['rows in an array', 'ERR_ARGUMENT', /^userRows: .* an array/, (m) => m.topKRows([0] as never, 2)],
      [
        'pairs of users in an array',
        'ERR_ARGUMENT',
        /^userRows: .* an array/,
        (m) => m.scorePairs([0] as never, Int32Array.of(0)),
      ],
      ['pairs without items', 'ERR_ARGUMENT', /^itemRows: /, (m) => m.scorePairs(Int32Array.of(0), null as never)],
      [
        'a filter by row that is null',
        'ERR_ARGUMENT',
        /^filter: /,
        (m) => m.topKRows(Int32Array.of(0), 2, null as never),
      ],
      [
        'rows of a filter in an array',
        'ERR_ARGUMENT',
        /^filter.seenRows: .* an array/,
        async (m) => m.topKRows(Int32Array.of(0), 2, { seen: await data.matrix(), seenRows: [0] as never }),
      ],
      ['a path that is none', 'ERR_ARGUMENT', /^path: /, (m) => m.save(undefined as never)],
      ['a path with a NUL character', 'ERR_ARGUMENT', /^path: .*NUL/, (m) => m.save(join(dir, 'a\0b'))],
      ['history that is no array', 'ERR_ARGUMENT', /^history: /, (m) => m.recommend({ history: 'i1' as never })],
      ['rows out of range', 'ERR_RANGE', /rows/i, (m) => m.topKRows(Int32Array.of(40_000), 3)],
      ['fit on something else', 'ERR_ARGUMENT', /^interactions: /, (m) => m.fit([[1, 2]] as never)],
      [
        'fit on nothing',
        'ERR_VALUE',
        /^interactions: expected at least one/,
        async (m) => m.fit(await CsrMatrix.fromCoo(new Int32Array(), new Int32Array(), undefined, { shape: [3, 4] })),
      ],
      [
        'fit on a negative weight',
        'ERR_VALUE',
        /^interactions: .* -2/,
        async (m) =>
          m.fit(
            await CsrMatrix.fromCoo(Int32Array.of(0, 1), Int32Array.of(0, 1), Float32Array.of(1, -2), {
              shape: [2, 2],
            }),
          ),
      ],
    ];
    it.each(bad)('refuses %s', async (_, code, message, call) => {
      await rejects({ code, message }, () => call(model));
      expect((await model.recommend('u1')).length).toBe(10);
    });

    it('folds in no history that it would not recommend to', async () => {
      const fold = (history: unknown) => model.foldIn && (() => model.foldIn!(history as never));
      const weight = /^history\[0\].weight: expected .* received /;
      await rejects({ code: 'ERR_VALUE', message: weight }, fold([{ item: 'i1', weight: Symbol() }]));
      await rejects({ code: 'ERR_VALUE', message: weight }, fold([{ item: 'i1', weight: -1 }]));
      await rejects({ code: 'ERR_ARGUMENT', message: /^history\[0\].wieght: / }, fold([{ item: 'i1', wieght: 5 }]));
      await rejects({ code: 'ERR_ARGUMENT', message: /^history: .* null/ }, fold(null));
    });

    it('refuses options that are none, or that do not exist, in every method', async () => {
      const path = join(dir, 'options.safetensors');
      await model.save(path);
      const row = Int32Array.of(0);
      const calls: Record<string, ((options: never) => Promise<unknown>) | undefined> = {
        fit: (options) => model.fit(data, options),
        recommend: (options) => model.recommend('u1', options),
        score: (options) => model.score('u1', 'i1', options),
        save: (options) => model.save(path, options),
        load: (options) => load(path, options),
        topKRows: (options) => model.topKRows(row, 2, {}, options),
        scorePairs: (options) => model.scorePairs(row, row, options),
        foldIn: model.foldIn && ((options) => model.foldIn!(['i1'], options)),
        explain: model.explain && ((options) => model.explain!('u1', 'i1', options)),
        similarItems: model.similarItems && ((options) => model.similarItems!('i1', options)),
        similarUsers: model.similarUsers && ((options) => model.similarUsers!('u1', options)),
        partialFit: model.partialFit && ((options) => model.partialFit!(data, options)),
      };
      const code = 'ERR_ARGUMENT';
      for (const call of Object.values(calls)) {
        if (!call) continue;
        for (const [options, message] of [
          [null, /^options: expected an object but received null/],
          ['fast', /^options: expected an object but received 'fast'/],
          [[], /^options: expected an object but received an array/],
          [{ map: true }, /^options.map: no such option/],
          [{ signal: 5 }, /^signal: .* 5/],
          [{ onProgress: 5 }, /^onProgress: .* 5/],
        ] as const)
          await rejects({ code, message }, () => call(options as never));
      }
    });

    it('refuses what only looks like true or false', async () => {
      const code = 'ERR_ARGUMENT';
      const message = /^excludeSeen: expected true or false but received 'false'/;
      await rejects({ code, message }, () => model.recommend('u1', { excludeSeen: 'false' as never }));
      expect(() => model.recommendSync('u1', { excludeSeen: 'false' as never })).toThrow(message);
      // Of the models that have these options; the others have no such option.
      await rejects({ code, message: /warmStart: (expected true or false|no such)/ }, () =>
        model.fit(data, { warmStart: 'no' } as never),
      );
      const Model = model.constructor as new (options: object) => AnyModel;
      expect(() => new Model({ computeLoss: 'yes' })).toThrow(/computeLoss: (expected true or false|no such)/);
    });

    it('names the greatest seed, and the number of users', async () => {
      const Model = model.constructor as new (options: object) => AnyModel;
      expect(() => new Model({ seed: 2 ** 60 })).toThrow(/seed: (expected 0 to 9007199254740991 |no such)/);
      if (!model.similarUsers) return;
      const message = /^k: expected 1 to 40, the number of users, but received 41/;
      await rejects({ code: 'ERR_RANGE', message }, () => model.similarUsers!('u1', { k: 41 }));
    });

    if (!seeded) {
      it('gives everybody the same list', async () => {
        const a = await model.recommend('u1', { k: itemCount, excludeSeen: false });
        expect(await model.recommend('u2', { k: itemCount, excludeSeen: false })).toEqual(a);
      });
    }

    it('says what users without interactions get', async () => {
      const matrix = await CsrMatrix.fromCoo(Int32Array.of(0, 2), Int32Array.of(0, 1), undefined, { shape: [3, 4] });
      const sparse = make();
      await sparse.fit(matrix);
      if (needsHistory) {
        await expect(sparse.recommend(1)).rejects.toMatchObject({ code: 'ERR_VALUE', message: /^user: '1' has no/ });
        const { ids, scores } = await sparse.topKRows(Int32Array.of(1), 3);
        expect([[...ids], [...scores]]).toEqual([
          [0, 1, 2],
          [0, 0, 0],
        ]);
      } else {
        expect((await sparse.recommend(1, { k: 4 })).length).toBe(4);
      }
    });
  });
}
