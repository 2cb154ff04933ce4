import { copyFileSync, mkdtempSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  FlatIndex,
  HnswIndex,
  type SearchResult,
  TopknotError,
  tensor,
  type Vector,
  type VectorMetric,
} from '../../lib/index.js';
import { numbers } from '../models/suite.js';

const metrics: VectorMetric[] = ['innerProduct', 'cosine', 'l2'];
const dir = mkdtempSync(join(tmpdir(), 'topknot-hnsw-'));
afterAll(() => rmSync(dir, { recursive: true }));

const d = 24;
const n = 4000;

/** Vectors around 40 centres, of different lengths. */
function clustered(count: number, seed: number, spread = 0.5): Float32Array {
  const centre = numbers(7);
  const centres = Float32Array.from({ length: 40 * d }, () => 2 * centre() - 1);
  const next = numbers(seed);
  const out = new Float32Array(count * d);
  for (let i = 0; i < count; i++) {
    const at = Math.floor(next() * 40) * d;
    const length = 0.7 + 0.6 * next();
    for (let j = 0; j < d; j++) out[i * d + j] = length * (centres[at + j]! + spread * (2 * next() - 1));
  }
  return out;
}

const rowsOf = (flat: Float32Array): Vector[] =>
  Array.from({ length: flat.length / d }, (_, i) => flat.subarray(i * d, (i + 1) * d));
const ids = Array.from({ length: n }, (_, i) => `item ${i}`);
const vectors = clustered(n, 1);
const queries = rowsOf(clustered(60, 2));

/** Share of the exact answers that were found. */
function recall(found: SearchResult<string>[], exact: SearchResult<string>[]): number {
  let hits = 0;
  let all = 0;
  for (const [q, { ids: truth }] of exact.entries()) {
    const got = new Set(found[q]!.ids);
    hits += truth.filter((id) => got.has(id)).length;
    all += truth.length;
  }
  return hits / all;
}

async function code(work: Promise<unknown> | (() => unknown)): Promise<string> {
  try {
    await (typeof work === 'function' ? work() : work);
  } catch (error) {
    if (!(error instanceof TopknotError)) throw error;
    expect(error.message).toMatch(/^[\w.[\]]+: /);
    return error.code;
  }
  return 'none';
}

describe.each(metrics)('%s', (metric) => {
  let exact: FlatIndex<string>;
  let index: HnswIndex<string>;
  beforeAll(async () => {
    exact = await FlatIndex.from(ids, vectors, { metric });
    index = await HnswIndex.from(ids, vectors, { metric });
  });

  it('finds nearly all, more with a larger expansion, with the scores of exact search', async () => {
    const truth = await exact.search(queries, { k: 10 });
    const found = await index.search(queries, { k: 10 });
    expect(recall(found, truth)).toBeGreaterThan(0.9);
    const wide = await index.search(queries, { k: 10, expansionSearch: 800 });
    expect(recall(wide, truth)).toBeGreaterThan(0.99);
    const scores = new Map(truth.flatMap((r, q) => r.ids.map((id, i) => [`${q} ${id}`, r.scores[i]!] as const)));
    for (const [q, result] of found.entries()) {
      for (const [i, id] of result.ids.entries()) {
        const wanted = scores.get(`${q} ${id}`);
        if (wanted !== undefined) expect(result.scores[i]).toBeCloseTo(wanted, metric === 'cosine' ? 6 : 12);
        const order = metric === 'l2' ? -1 : 1;
        if (i > 0) expect(order * result.scores[i]!).toBeLessThanOrEqual(order * result.scores[i - 1]!);
      }
    }
    expect(index.searchSync(queries, { k: 10 })).toEqual(found);
    expect(index.searchSync(queries[3]!, { k: 10 })).toEqual(found[3]);
    expect(await index.search(queries[3]!, { k: 10 })).toEqual(found[3]);
  });

  it('gives k allowed items whenever there are k, for wide and narrow filters', async () => {
    for (const share of [2, 9, 60, 500, 3999]) {
      const allow = ids.filter((_, i) => i % share === 1);
      const k = Math.min(10, allow.length);
      const truth = await exact.search(queries, { k, filter: { allow } });
      const found = await index.search(queries, { k, filter: { allow } });
      const allowed = new Set(allow);
      for (const { ids: got } of found) {
        expect(got.length).toBe(k);
        expect(got.every((id) => allowed.has(id))).toBe(true);
      }
      const narrow = allow.length ** 2 < 4 * 64 * n;
      expect(recall(found, truth)).toBeGreaterThan(narrow ? 0.999 : 0.9);
    }
    const deny = exact.searchSync(queries[0]!, { k: 50 }).ids;
    const rest = index.searchSync(queries[0]!, { k: 10, filter: { deny } });
    expect(rest.ids.length).toBe(10);
    expect(rest.ids.filter((id) => deny.includes(id))).toEqual([]);
    expect(index.searchSync(queries[0]!, { filter: { allow: [] } }).ids).toEqual([]);
  });

  it('is built alike each time, and the file gives the same answers', async () => {
    using again = await HnswIndex.from(ids, vectors, { metric });
    const found = await index.search(queries, { k: 20 });
    expect(await again.search(queries, { k: 20 })).toEqual(found);
    const path = join(dir, `${metric}.safetensors`);
    await index.save(path);
    await again.save(`${path}.again`);
    expect(readFileSync(path).equals(readFileSync(`${path}.again`))).toBe(true);
    using loaded = await HnswIndex.load<string>(path);
    expect([loaded.size, loaded.metric, loaded.dimensions, loaded.connectivity]).toEqual([n, metric, d, 16]);
    expect(await loaded.search(queries, { k: 20 })).toEqual(found);
    await loaded.save(`${path}.loaded`);
    expect(readFileSync(path).equals(readFileSync(`${path}.loaded`))).toBe(true);
  });

  it('a parallel build finds as much', async () => {
    const steps: number[] = [];
    const onProgress = ({ done, total }: { done: number; total: number }) => steps.push(done / total);
    using parallel = await HnswIndex.from(ids, tensor(vectors, { shape: [n, d] }), {
      metric,
      parallel: true,
      onProgress,
    });
    const truth = await exact.search(queries, { k: 10 });
    expect(recall(await parallel.search(queries, { k: 10 }), truth)).toBeGreaterThan(0.9);
    expect(steps.length).toBeGreaterThan(0);
  });
});

describe('changes', () => {
  const half = n / 2;
  const first = ids.slice(0, half);
  const other = clustered(half, 3, 0.6);

  it('adds, updates and removes, and finds what exact search over the same finds', async () => {
    using index = await HnswIndex.from(first, vectors.subarray(0, half * d));
    await index.add(ids.slice(half), vectors.subarray(half * d), { parallel: true });
    await index.update(first, other);
    await index.remove(ids.filter((_, i) => i % 3 === 0));
    const left = ids.filter((_, i) => i % 3 !== 0);
    expect(index.size).toBe(left.length);
    expect([index.has('item 0'), index.has('item 1')]).toEqual([false, true]);
    const now = new Float32Array(vectors);
    now.set(other);
    const rows = rowsOf(now).filter((_, i) => i % 3 !== 0);
    const exact = await FlatIndex.from(left, Float32Array.from(rows.flatMap((r) => [...r])));
    const truth = await exact.search(queries, { k: 10 });
    const found = await index.search(queries, { k: 10 });
    expect(found.flatMap((r) => r.ids).filter((id) => !index.has(id))).toEqual([]);
    expect(recall(found, truth)).toBeGreaterThan(0.9);

    const path = join(dir, 'changed.safetensors');
    await index.save(path);
    using loaded = await HnswIndex.load<string>(path);
    expect(loaded.size).toBe(left.length);
    expect(await loaded.search(queries, { k: 10 })).toEqual(found);

    // What was removed comes back in the places of others: the graph stays as large as it was.
    await loaded.add(
      ids.filter((_, i) => i % 3 === 0),
      Float32Array.from(rowsOf(now).flatMap((r, i) => (i % 3 === 0 ? [...r] : []))),
    );
    const all = await FlatIndex.from(ids, now);
    expect(recall(await loaded.search(queries, { k: 10 }), await all.search(queries, { k: 10 }))).toBeGreaterThan(0.9);
  });

  it('finds vectors that are longer than all it began with', async () => {
    using index = await HnswIndex.from(first, vectors.subarray(0, half * d));
    const long = clustered(300, 21).map((x) => 1.5 * x);
    await index.add(ids.slice(half, half + 300), long);
    const exact = await FlatIndex.from(
      ids.slice(0, half + 300),
      Float32Array.from([...vectors.subarray(0, half * d), ...long]),
    );
    const truth = await exact.search(queries, { k: 10 });
    expect(truth.flatMap((r) => r.ids).filter((id) => !first.includes(id)).length).toBeGreaterThan(300);
    expect(recall(await index.search(queries, { k: 10, expansionSearch: 128 }), truth)).toBeGreaterThan(0.9);
  });

  it('keeps its recall when everything has been replaced several times', async () => {
    using index = await HnswIndex.from(first, vectors.subarray(0, half * d));
    let now: Float32Array = vectors;
    for (let round = 0; round < 3; round++) {
      now = clustered(half, 10 + round);
      await index.update(first, now, { parallel: round === 1 });
    }
    const exact = await FlatIndex.from(first, now);
    const truth = await exact.search(queries, { k: 10 });
    expect(recall(await index.search(queries, { k: 10 }), truth)).toBeGreaterThan(0.9);
  });

  it('while searches run: each answer is whole, and from before the change or after it', async () => {
    using index = await HnswIndex.from(first, vectors.subarray(0, half * d));
    let running = true;
    let answers = 0;
    const searching = Promise.all(
      [0, 1, 2].map(async (worker) => {
        while (running) {
          const found = await index.search(queries, { k: 10 });
          for (const { ids: got } of found) {
            expect(got.length).toBe(10);
            expect(new Set(got).size).toBe(10);
          }
          index.searchSync(queries[worker]!, { k: 5 });
          answers++;
        }
      }),
    );
    const rest = ids.slice(half);
    await Promise.all([
      index.add(rest, vectors.subarray(half * d), { parallel: true }),
      index.update(first, other),
      index.remove(rest.slice(0, 500)),
      index.add(rest.slice(0, 500), vectors.subarray(0, 500 * d)),
      index.save(join(dir, 'while.safetensors')),
    ]);
    running = false;
    await searching;
    expect(answers).toBeGreaterThan(0);
    expect(index.size).toBe(n);
    using loaded = await HnswIndex.load<string>(join(dir, 'while.safetensors'));
    expect(await loaded.search(queries)).toEqual(await index.search(queries));
  });

  it('an aborted change leaves everything as it was', async () => {
    using index = await HnswIndex.from(first, vectors.subarray(0, half * d));
    const before = await index.search(queries, { k: 10 });
    const abort = new AbortController();
    const add = index.add(ids.slice(half), vectors.subarray(half * d), {
      signal: abort.signal,
      onProgress: ({ done }) => done > 100 && abort.abort(new Error('enough')),
    });
    await expect(add).rejects.toThrow('enough');
    expect(index.size).toBe(half);
    expect(recall(await index.search(queries, { k: 10 }), before)).toBeGreaterThan(0.95);
    await expect(HnswIndex.from(ids, vectors, { signal: AbortSignal.abort(new Error('no')) })).rejects.toThrow('no');
    await index.add(ids.slice(half), vectors.subarray(half * d));
    expect(index.size).toBe(n);
    const exact = await FlatIndex.from(ids, vectors);
    const truth = await exact.search(queries, { k: 10 });
    expect(recall(await index.search(queries, { k: 10 }), truth)).toBeGreaterThan(0.9);
  });

  it('down to nothing and up again', async () => {
    using index = await HnswIndex.from<bigint>([1n, 2n], Float32Array.of(1, 0, 0, 1));
    await index.remove([1n, 2n]);
    expect(index.size).toBe(0);
    expect((await index.search([1, 0])).ids).toEqual([]);
    await index.add([2n, 7n, 9n], Float32Array.of(3, 0, 0, 3, 1, 1));
    expect(await index.search([1, 0], { k: 3 })).toEqual({ ids: [2n, 9n, 7n], scores: Float32Array.of(3, 1, 0) });
    await index.add([], new Float32Array());
    expect(index.size).toBe(3);
  });
});

describe('bad input', () => {
  const small = () => HnswIndex.from<string>(['a', 'b', 'c'], Float32Array.of(1, 0, 0, 1, 1, 1));

  it('names what is wrong', async () => {
    using index = await small();
    const nan = Float32Array.of(1, Number.NaN);
    expect(await code(HnswIndex.from([], new Float32Array()))).toBe('ERR_VALUE');
    expect(await code(HnswIndex.from(['a'], nan))).toBe('ERR_VALUE');
    expect(await code(HnswIndex.from(['a', 'a'], Float32Array.of(1, 2)))).toBe('ERR_VALUE');
    expect(await code(HnswIndex.from(['a', 'b'], Float32Array.of(1, 2, 3)))).toBe('ERR_SHAPE');
    expect(await code(HnswIndex.from(['a'], tensor(Float64Array.of(1)) as never))).toBe('ERR_DTYPE');
    expect(await code(HnswIndex.from(['a'], Float32Array.of(1), { metric: 'dot' as never }))).toBe('ERR_ARGUMENT');
    expect(await code(HnswIndex.from(['a'], Float32Array.of(1), { ef: 3 } as never))).toBe('ERR_ARGUMENT');
    expect(await code(HnswIndex.from(['a'], Float32Array.of(1), { connectivity: 1 }))).toBe('ERR_RANGE');
    expect(await code(HnswIndex.from(['a'], Float32Array.of(1), { expansionAdd: 0 }))).toBe('ERR_RANGE');
    expect(await code(HnswIndex.from(['a'], Float32Array.of(1), { parallel: 1 as never }))).toBe('ERR_ARGUMENT');
    expect(await code(index.search(nan))).toBe('ERR_VALUE');
    expect(await code(index.search([1, 2, 3]))).toBe('ERR_SHAPE');
    expect(await code(index.search([1, 2], { k: 4 }))).toBe('ERR_RANGE');
    expect(await code(index.search([1, 2], { k: 0 }))).toBe('ERR_RANGE');
    expect(await code(index.search([1, 2], { expansionSearch: 0 }))).toBe('ERR_RANGE');
    expect(await code(index.search([1, 2], { filter: { allow: [1 as never] } }))).toBe('ERR_ARGUMENT');
    expect(await code(index.search(tensor(new Float32Array(3), { shape: [1, 3] })))).toBe('ERR_SHAPE');
    expect(await code(index.recall([[1, 2]], { k: 4 }))).toBe('ERR_RANGE');
    expect(await code(index.recall([[1, 2]], { rescore: 4 } as never))).toBe('ERR_ARGUMENT');
    expect(await code(index.compact({ parallel: 1 as never }))).toBe('ERR_ARGUMENT');
    expect(await code(HnswIndex.load('x', { map: 1 as never }))).toBe('ERR_ARGUMENT');
    expect(await code(HnswIndex.load('x', { names: [] } as never))).toBe('ERR_ARGUMENT');
    expect(await code(index.add(['a'], Float32Array.of(1, 2)))).toBe('ERR_VALUE');
    expect(await code(index.add([4 as never], Float32Array.of(1, 2)))).toBe('ERR_ARGUMENT');
    expect(await code(index.add(['d'], Float32Array.of(1)))).toBe('ERR_SHAPE');
    expect(await code(index.add(['d'], nan))).toBe('ERR_VALUE');
    expect(await code(index.update(['d'], Float32Array.of(1, 2)))).toBe('ERR_UNKNOWN_ID');
    expect(await code(index.remove(['d']))).toBe('ERR_UNKNOWN_ID');
    expect(await code(index.remove(['a', 'a']))).toBe('ERR_VALUE');
    expect(index.size).toBe(3);
    expect(index.searchSync([0, 1], { k: 3 }).ids).toEqual(['b', 'c', 'a']);
    index.dispose();
    expect(await code(index.search([1, 2]))).toBe('ERR_DISPOSED');
    expect(await code(index.add(['d'], Float32Array.of(1, 2)))).toBe('ERR_DISPOSED');
    expect(await code(index.compact())).toBe('ERR_DISPOSED');
    expect(await code(index.recall([[1, 2]]))).toBe('ERR_DISPOSED');
    expect(await code(() => index.stats)).toBe('ERR_DISPOSED');
  });

  it('zero vectors have cosine 0', async () => {
    using index = await HnswIndex.from([1, 2, 3], Float32Array.of(0, 0, 1, 0, -1, 0), { metric: 'cosine' });
    expect(await index.search([5, 0], { k: 3 })).toEqual({ ids: [2, 1, 3], scores: Float32Array.of(1, 0, -1) });
    expect(index.searchSync([0, 0], { k: 3 }).scores).toEqual(new Float32Array(3));
  });

  it('refuses files that are cut short, of another version or of another kind', async () => {
    using index = await small();
    const path = join(dir, 'small.safetensors');
    await index.save(path);
    const cut = join(dir, 'cut.safetensors');
    for (let bytes = 0; bytes < statSync(path).size; bytes += 37) {
      copyFileSync(path, cut);
      truncateSync(cut, bytes);
      for (const map of [false, true]) expect(await code(HnswIndex.load(cut, { map }))).toBe('ERR_FORMAT');
    }
    const content = readFileSync(path, 'latin1');
    const refused = async (from: string, to: string, message: string) => {
      expect(content).toContain(from);
      writeFileSync(cut, content.replace(from, to), 'latin1');
      for (const map of [false, true]) {
        expect(await code(HnswIndex.load(cut, { map }))).toBe('ERR_FORMAT');
        await expect(HnswIndex.load(cut, { map })).rejects.toThrow(message);
      }
    };
    await refused('"version":"2"', '"version":"1"', "version '1'");
    await refused('"version":"2"', '"version":"3"', "version '3'");
    await refused('"connectivity":"16"', '"connectivity":"xx"', 'connectivity');
    await refused('"connectivity":"16"', '"connectivity":"17"', 'connectivity');
    await refused('"dimensions":"2"', '"dimensions":"0"', 'dimensions');
    await refused('"count":"3"', '"count":"4"', 'items.ids');
    await refused('"metric":"inner', '"metric":"other', 'metric');
    await refused('"bound":', '"bount":', 'bound');
    for (const name of ['vectors', 'keys', 'graph'])
      await refused(`"${name}":`, `"${name.toUpperCase()}":`, `the tensor '${name}'`);
    using flat = await FlatIndex.from(['a'], Float32Array.of(1));
    await flat.save(cut);
    expect(await code(HnswIndex.load(cut))).toBe('ERR_FORMAT');
    expect(await code(HnswIndex.load(join(dir, 'none')))).toBe('ERR_IO');
    expect(await code(FlatIndex.load(path))).toBe('ERR_FORMAT');
  });

  it('survives any byte of the file being another', async () => {
    using index = await small();
    const path = join(dir, 'whole.safetensors');
    await index.save(path);
    const whole = readFileSync(path);
    const changed = join(dir, 'changed-byte.safetensors');
    const next = numbers(5);
    for (let i = 0; i < 600; i++) {
      const bytes = Buffer.from(whole);
      bytes[Math.floor(next() * bytes.length)] = Math.floor(next() * 256);
      writeFileSync(changed, bytes);
      try {
        using loaded = await HnswIndex.load(changed, { map: i % 2 === 0 });
        loaded.searchSync([1, 2], { k: 1 });
        loaded.searchSync([1, 2], { k: 1, filter: { allow: ['a', 'c'] as never } });
        if (i % 4 === 0) await loaded.compact();
      } catch (error) {
        expect((error as TopknotError).code).toMatch(/^ERR_/);
      }
    }
  });
});
