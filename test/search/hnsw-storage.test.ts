// What an HnswIndex does beside searching: files that are mapped, compacting, ids, statistics, recall.
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { FlatIndex, HnswIndex, memory, type VectorMetric } from '../../lib/index.js';
import { numbers } from '../models/suite.js';
import { settledMemory } from '../reference/memory.js';

const dir = mkdtempSync(join(tmpdir(), 'topknot-hnsw-storage-'));
afterAll(() => rmSync(dir, { recursive: true }));

const n = 1200;
const ids = Array.from({ length: n }, (_, i) => `item ${i}`);

function made(seed: number, count: number, d: number) {
  const next = numbers(seed);
  const flat = Float32Array.from({ length: count * d }, () => next() - 0.5);
  return { flat, rows: Array.from({ length: count }, (_, i) => flat.subarray(i * d, (i + 1) * d)) };
}

const kinds: [VectorMetric, number][] = [
  ['innerProduct', 20],
  ['innerProduct', 32], // one more coordinate than a row of the file has room for
  ['cosine', 20],
  ['l2', 32],
];

describe.each(kinds)('%s of %i numbers', (metric, d) => {
  const items = made(1, n, d);
  const { rows: queries } = made(2, 25, d);
  const build = () => HnswIndex.from(ids, items.flat, { metric });

  it('answers the same from a mapped file, and is copied by the first change', async () => {
    using index = await build();
    await index.remove(ids.slice(0, 100));
    const path = join(dir, `${metric}-${d}`);
    await index.save(path);
    const found = await index.search(queries, { k: 20 });
    using read = await HnswIndex.load<string>(path);
    const before = (await settledMemory()).hostBytes;
    using mapped = await HnswIndex.load<string>(path, { map: true });
    expect(memory().hostBytes - before).toBeLessThan(n * d * 4); // the ids and their table
    expect([mapped.size, mapped.metric, mapped.dimensions, mapped.stats.signposts]).toEqual([n - 100, metric, d, 100]);
    expect([...mapped.ids]).toEqual(ids.slice(100));
    expect(await mapped.search(queries, { k: 20 })).toEqual(found);
    const filter = { allow: ids.filter((_, i) => i % 3 === 0) };
    expect(mapped.searchSync(queries, { k: 5, filter })).toEqual(read.searchSync(queries, { k: 5, filter }));
    expect(mapped.searchSync(queries, { k: 5, expansionSearch: 500 })).toEqual(
      read.searchSync(queries, { k: 5, expansionSearch: 500 }),
    );
    const original = readFileSync(path);
    await mapped.save(`${path}-again`);
    expect(readFileSync(`${path}-again`).equals(original)).toBe(true);

    // A change while a search of the mapped graph runs.
    const running = mapped.search(queries, { k: 20, expansionSearch: 1000 });
    for (const changed of [mapped, read]) {
      await changed.update(ids.slice(100, 200), items.flat.subarray(0, 100 * d));
      await changed.add(['new'], items.rows[7]!);
      await changed.remove(['item 300']);
    }
    expect((await running).every((r) => r.ids.length === 20)).toBe(true);
    expect(await mapped.search(queries, { k: 20 })).toEqual(await read.search(queries, { k: 20 }));
    await mapped.save(path); // onto the file that it came from
    await read.save(`${path}-read`);
    expect(readFileSync(path).equals(readFileSync(`${path}-read`))).toBe(true);
    expect(readFileSync(`${path}-again`).equals(original)).toBe(true);
  });

  it('compacts to what would have been built without the removed', async () => {
    using index = await build();
    const gone = ids.filter((_, i) => i % 3 === 0);
    await index.remove(gone);
    const steps: number[] = [];
    await index.compact({ onProgress: ({ done }) => void steps.push(done) });
    expect(steps.length).toBeGreaterThan(0);
    const left = ids.filter((_, i) => i % 3 !== 0);
    expect([index.size, index.stats.signposts, [...index.ids]]).toEqual([left.length, 0, left]);
    expect([index.has('item 0'), index.has('item 1')]).toEqual([false, true]);
    const rows = items.rows.filter((_, i) => i % 3 !== 0);
    using fresh = await HnswIndex.from(left, Float32Array.from(rows.flatMap((r) => [...r])), { metric });
    expect(await index.search(queries, { k: 20 })).toEqual(await fresh.search(queries, { k: 20 }));
    const path = join(dir, `${metric}-${d}-compact`);
    await index.save(path);
    await fresh.save(`${path}-fresh`);
    expect(readFileSync(path).equals(readFileSync(`${path}-fresh`))).toBe(true);
    await index.add(gone, Float32Array.from(items.rows.flatMap((r, i) => (i % 3 === 0 ? [...r] : []))));
    expect([...index.ids]).toEqual([...left, ...gone]);
    expect(await index.recall(queries)).toBeGreaterThan(0.9);
  });

  it('tells its recall as a comparison with exact search does', async () => {
    using index = await build();
    await index.remove(ids.slice(0, 50));
    using exact = await FlatIndex.from(ids.slice(50), items.flat.subarray(50 * d), { metric });
    for (const expansionSearch of [10, 40, n]) {
      const found = await index.search(queries, { k: 10, expansionSearch });
      const truth = await exact.search(queries, { k: 10 });
      const hits = truth.reduce((sum, t, q) => sum + t.ids.filter((id) => found[q]!.ids.includes(id)).length, 0);
      expect(await index.recall(queries, { k: 10, expansionSearch })).toBe(hits / (10 * queries.length));
    }
    expect(await index.recall(queries, { k: 10, expansionSearch: 10 })).toBeLessThan(1);
    expect(await index.recall(queries, { k: 10, expansionSearch: n })).toBeGreaterThan(0.99);
    expect(await index.recall(queries, { filter: { allow: ['item 60', 'item 3'] } })).toBe(1);
    expect(await index.recall(queries, { filter: { allow: [] } })).toBe(1);
  });
});

const d = 16;
const items = made(3, n, d);
const { rows: queries } = made(4, 30, d);

it('counts its queries by how they were answered', async () => {
  using index = await HnswIndex.from(ids, items.flat);
  expect(index.stats).toEqual({ signposts: 0, approximate: 0, exact: 0 });
  await index.search(queries);
  index.searchSync(queries[0]!);
  index.searchSync(queries[0]!, { filter: { allow: ids.slice(0, 20) } }); // so few that all are looked at
  await index.recall(queries); // does not count
  await index.remove(ids.slice(0, 10));
  expect(index.stats).toEqual({ signposts: 10, approximate: 31, exact: 1 });
  await index.compact();
  expect(index.stats).toEqual({ signposts: 0, approximate: 31, exact: 1 });
});

it('takes what it is asked as it was at the call', async () => {
  using index = await HnswIndex.from(ids, items.flat);
  const path = join(dir, 'asked');
  await index.save(path);
  for (const filter of [undefined, { deny: ['item 3'] }]) {
    using loaded = await HnswIndex.load<string>(path); // its ids are not looked up yet
    const truth = index.searchSync(queries[0]!, { k: 4, filter });
    const [query, options] = [queries[0]!.slice(), { k: 4, filter: filter && { deny: [...filter.deny] } }];
    const asked = [loaded.search(query, options), loaded.search([...query], options)];
    const recall = loaded.recall([query], options);
    query.fill(0);
    options.k = 2;
    options.filter?.deny.push(...truth.ids);
    for (const answer of asked) expect(await answer).toEqual(truth);
    expect(await recall).toBe(1);
  }
});

describe('compact', () => {
  it('leaves alone what has nothing to drop, a mapped file too', async () => {
    using index = await HnswIndex.from(ids, items.flat);
    const path = join(dir, 'whole');
    await index.save(path);
    using mapped = await HnswIndex.load<string>(path, { map: true });
    const before = (await settledMemory()).hostBytes;
    await mapped.compact();
    expect(memory().hostBytes).toBe(before);
    expect(await mapped.search(queries)).toEqual(await index.search(queries));
    await mapped.remove(ids.slice(0, 5));
    await mapped.compact({ parallel: true });
    expect([mapped.size, mapped.stats.signposts]).toEqual([n - 5, 0]);
  });

  it('forgets ids that came and went, and keeps the graph where all places are taken', async () => {
    using index = await HnswIndex.from(ids, items.flat);
    for (let round = 0; round < 5; round++) {
      await index.remove(index.ids.size === n ? [...index.ids].slice(0, 200) : []);
      await index.add(
        Array.from({ length: 200 }, (_, i) => `round ${round} ${i}`),
        items.flat.subarray(0, 200 * d),
      );
    }
    expect([index.size, index.stats.signposts]).toEqual([n, 0]);
    const found = await index.search(queries, { k: 30 });
    const listed = [...index.ids];
    await index.compact();
    expect(await index.search(queries, { k: 30 })).toEqual(found);
    expect([...index.ids]).toEqual(listed);
    expect(index.has('item 1')).toBe(false);
    await index.remove(['round 4 7']);
    await index.add(['item 1'], items.rows[1]!);
    expect(index.searchSync(items.rows[1]!, { k: 1, filter: { allow: ['item 1', 'item 2'] } }).ids).toEqual(['item 1']);
  });

  it('while searches and changes run', async () => {
    using index = await HnswIndex.from(ids, items.flat);
    await index.remove(ids.slice(0, 400));
    let running = true;
    let answers = 0;
    const searching = Promise.all(
      [undefined, { deny: ids.slice(400, 420) }].map(async (filter) => {
        while (running) {
          for (const { ids: found, scores } of await index.search(queries, { k: 10, filter })) {
            expect(new Set(found).size).toBe(10);
            for (const [i, id] of found.entries()) {
              const at = ids.indexOf(id); // the score is that of the id, whatever its key was meanwhile
              expect(at).toBeGreaterThanOrEqual(filter ? 420 : 400);
              if (i > 0) expect(scores[i]!).toBeLessThanOrEqual(scores[i - 1]!);
            }
          }
          answers++;
        }
      }),
    );
    const compacting = index.compact();
    const removing = index.remove(ids.slice(420, 600));
    const again = index.compact({ parallel: true });
    await Promise.all([compacting, removing, again]);
    running = false;
    await searching;
    expect(answers).toBeGreaterThan(1);
    expect([index.size, index.stats.signposts]).toEqual([n - 580, 0]);
    const exact = await FlatIndex.from(
      [...index.ids],
      Float32Array.from([...index.ids].flatMap((id) => [...items.rows[ids.indexOf(id)]!])),
    );
    const [found, truth] = [await index.search(queries, { k: 10, expansionSearch: n }), await exact.search(queries)];
    for (const [q, { ids: got, scores }] of found.entries())
      for (const [i, id] of got.entries()) {
        const wanted = truth[q]!.ids.indexOf(id);
        if (wanted >= 0) expect(scores[i]).toBe(truth[q]!.scores[wanted]);
      }
  });

  it('changes nothing when it is aborted, and nothing comes back after dispose', async () => {
    using index = await HnswIndex.from(ids, items.flat);
    await index.remove(ids.slice(0, 300));
    const before = await index.search(queries);
    const abort = new AbortController();
    const onProgress = ({ done }: { done: number }) => done > 100 && abort.abort(new Error('enough'));
    await expect(index.compact({ signal: abort.signal, onProgress })).rejects.toThrow('enough');
    expect([index.size, index.stats.signposts]).toEqual([n - 300, 300]);
    expect(await index.search(queries)).toEqual(before);
    const compacting = index.compact();
    setTimeout(() => index.dispose(), 3);
    await expect(compacting).rejects.toMatchObject({ code: 'ERR_DISPOSED' });
    await expect(index.search(queries)).rejects.toMatchObject({ code: 'ERR_DISPOSED' });
  });

  it('down to nothing, which cannot be saved, and up again', async () => {
    using index = await HnswIndex.from(['a', 'b'], Float32Array.of(1, 0, 0, 1));
    await index.remove(['a', 'b']);
    await expect(index.save(join(dir, 'none'))).rejects.toMatchObject({ code: 'ERR_VALUE' });
    await index.compact();
    await expect(index.save(join(dir, 'none'))).rejects.toMatchObject({ code: 'ERR_VALUE' });
    expect([index.size, index.stats.signposts, [...index.ids]]).toEqual([0, 0, []]);
    expect(await index.search([1, 0])).toEqual({ ids: [], scores: new Float32Array() });
    expect(await index.recall([[1, 0]])).toBe(1);
    await expect(index.add([1 as never], Float32Array.of(1, 2))).rejects.toMatchObject({ code: 'ERR_ARGUMENT' });
    await index.add(['c', 'd'], Float32Array.of(3, 0, 0, 3));
    expect(index.searchSync([1, 0], { k: 2 })).toEqual({ ids: ['c', 'd'], scores: Float32Array.of(3, 0) });
  });
});
