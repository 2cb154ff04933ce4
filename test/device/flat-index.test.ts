// FlatIndex on the emulated GPU: the answers of the CPU, for vectors that lie there and for those that go there in blocks.
import { mkdtempSync, openSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, describe, expect, it } from 'vitest';
import { device, FlatIndex, memory, type SearchResult, tensor, type VectorStorage } from '../../lib/index.js';
import { numbers } from '../models/suite.js';
import { settledMemory } from '../reference/memory.js';

const folder = mkdtempSync(join(tmpdir(), 'topknot-device-'));
afterAll(() => rmSync(folder, { recursive: true }));

// The counters of native/test/simt/faults.h.
const faults = openSync(join(folder, 'faults'), 'w+');
writeSync(faults, Buffer.alloc(32));
process.env.TOPKNOT_SIMT_FAULTS = join(folder, 'faults');
const set = (place: number, n: number) => writeSync(faults, BigInt64Array.of(BigInt(n)), 0, 8, place);
const [allocation, grid, recover] = [0, 8, 16];

afterEach(() => {
  set(allocation, 0);
  set(grid, 0);
  set(recover, 1);
  device('cuda'); // the next call recovers
});

const [n, d, k] = [300, 24, 7];
const next = numbers(3);
const vectors = Float32Array.from({ length: n * d }, () => next() - 0.5);
const bits = Uint8Array.from({ length: n * d }, () => 256 * next());
const ids = Array.from({ length: n }, (_, i) => `v${i}`);
const row = (i: number) => vectors.subarray(i * d, (i + 1) * d);
const queries = [0, 1, 2].map((i) => row(50 * i).map((x, j) => x + 0.1 * Math.sin(i + j)));
const bitQueries = [5, 9].map((i) => bits.slice(i * d, (i + 1) * d));

/** Blocks of 64 rows: a bitmap's word. */
const inBlocks = { deviceBytes: 64 * d };
const placements = { 'on the GPU': {}, 'in blocks': inBlocks };

const metrics = ['innerProduct', 'cosine', 'l2'] as const;
const floats: VectorStorage[] = ['float32', 'float16', 'bfloat16', 'int8'];
const kinds = floats.flatMap((storage) => metrics.map((metric) => ({ storage, metric }) as const));

function expectSame(found: SearchResult<string>[], expected: SearchResult<string>[]) {
  expect(found.map((f) => f.ids)).toEqual(expected.map((e) => e.ids));
  for (const [q, e] of expected.entries()) expect([...found[q]!.scores]).toEqual([...e.scores]);
}

describe.each(Object.entries(placements))('a FlatIndex %s', (_, placement) => {
  it.each(kinds)('answers as on the CPU: $storage, $metric', async (kind) => {
    using onCpu = await FlatIndex.from(ids, vectors, kind);
    using onGpu = await FlatIndex.from(ids, vectors, { ...kind, device: 'cuda', ...placement });
    expect([onCpu.device, onGpu.device]).toEqual(['cpu', 'cuda:0']);
    const exact = kind.storage === 'int8' ? { exact: true } : {};
    const options = [
      { k },
      { k: n },
      { k, filter: { deny: ids.slice(0, 150) } },
      { k, filter: { allow: ['v3', 'v299'] } },
    ];
    for (const one of options) {
      const expected = onCpu.searchSync(queries, { ...one, ...exact });
      expectSame(await onGpu.search(queries, { ...one, ...exact }), expected);
    }
    expectSame([onGpu.searchSync(queries[1]!, { k, ...exact })], [onCpu.searchSync(queries[1]!, { k, ...exact })]);
  });

  it('refuses queries that are not finite, wherever they come from', async () => {
    for (const storage of ['float32', 'int8'] as const) {
      using index = await FlatIndex.from(ids, vectors, { storage, device: 'cuda', ...placement });
      const asked = [...queries[0]!, ...queries[1]!];
      asked[d + 3] = Number.NaN;
      const both = tensor(Float32Array.from(asked), { shape: [2, d] });
      const error = { code: 'ERR_VALUE', message: 'queries: expected finite numbers but row 1 holds nan' };
      await expect(index.search(both, { k })).rejects.toMatchObject(error);
      await expect(index.search(both.to('cuda'), { k })).rejects.toMatchObject(error);
    }
  });

  it('counts bits as on the CPU', async () => {
    using onCpu = await FlatIndex.from(ids, bits);
    using onGpu = await FlatIndex.from(ids, bits, { device: 'cuda:1', ...placement });
    expect(onGpu.device).toBe('cuda:1');
    for (const filter of [undefined, { deny: ids.slice(0, 290) }])
      expectSame(await onGpu.search(bitQueries, { k, filter }), onCpu.searchSync(bitQueries, { k, filter }));
  });

  it.each([
    { storage: 'float32', metric: 'l2' },
    { storage: 'int8', metric: 'cosine' },
  ] as const)('changes, is saved and loaded: $storage', async (kind) => {
    const both = await Promise.all(
      [{}, { device: 'cuda', ...placement }].map((where) => FlatIndex.from(ids, vectors, { ...kind, ...where })),
    );
    const exact = kind.storage === 'int8' ? { exact: true } : {};
    for (const index of both) {
      await index.remove(ids.slice(40, 60));
      await index.add(['new', 'newer'], Float32Array.of(...row(100), ...row(7)));
      await index.update(['v1'], row(50).slice());
    }
    const [onCpu, onGpu] = both as [FlatIndex<string>, FlatIndex<string>];
    const compare = async (one: FlatIndex<string>) =>
      expectSame(await one.search(queries, { k, ...exact }), onCpu.searchSync(queries, { k, ...exact }));
    await compare(onGpu);
    await onGpu.save(join(folder, 'changed'));
    await onGpu.compact();
    expect(onGpu.size).toBe(n - 18);
    await compare(onGpu);
    await onGpu.save(join(folder, 'compacted'));
    for (const file of ['changed', 'compacted']) {
      for (const map of [false, true]) {
        using loaded = await FlatIndex.load<string>(join(folder, file), { map, device: 'cuda', ...placement });
        expect(loaded.device).toBe('cuda:0');
        await compare(loaded);
      }
      using back = await FlatIndex.load<string>(join(folder, file));
      await compare(back);
    }
    for (const index of both) index.dispose();
  });
});

describe('the memory of a FlatIndex', () => {
  it('is that of the GPU where it fits, else that of the host', async () => {
    const before = (await settledMemory()).cudaBytes;
    const there = await FlatIndex.from(ids, vectors, { device: 'cuda', metric: 'l2' });
    expect(memory().cudaBytes - before).toBe(4 * n * (d + 1));
    there.dispose();
    expect(memory().cudaBytes).toBe(before);
    using here = await FlatIndex.from(ids, vectors, { device: 'cuda', metric: 'l2', ...inBlocks });
    await here.search(queries);
    expect(memory().cudaBytes).toBe(before);
  });

  it('of vectors that were replaced is given back at once, after the searches that use them', async () => {
    const before = (await settledMemory()).cudaBytes;
    using index = await FlatIndex.from(ids, vectors, { device: 'cuda' });
    using onCpu = await FlatIndex.from(ids, vectors);
    const asked = { k, filter: { deny: ['v7'] } };
    const expected = onCpu.searchSync(queries, asked);
    await index.remove(ids.slice(200));
    const all = 4 * n * d;
    expect(memory().cudaBytes - before).toBeLessThanOrEqual(all);
    using other = await FlatIndex.from(ids, vectors, { device: 'cuda' });
    const busy = [
      other.search(queries, asked),
      other.recall(queries, { k }),
      other.save(join(folder, 'busy')),
    ] as const;
    await Promise.all([other.remove(ids.slice(20)), other.compact()]);
    expectSame(await busy[0], expected);
    expect(await busy[1]).toBe(1);
    await busy[2];
    using loaded = await FlatIndex.load<string>(join(folder, 'busy'));
    expect([loaded.size, other.size]).toEqual([n, 20]);
    await index.compact();
    expect(memory().cudaBytes - before).toBe(4 * d * (200 + 20));
    expectSame(
      await index.search(queries, asked),
      onCpu.searchSync(queries, { ...asked, filter: { deny: ['v7', ...ids.slice(200)] } }),
    );
  });

  it('may come from a tensor on a GPU, which stays', async () => {
    const matrix = tensor(vectors, { shape: [n, d], device: 'cuda' });
    using index = await FlatIndex.from(ids, matrix, { device: 'cuda' });
    const asked = tensor(queries[0]!, { shape: [1, d] });
    using onCpu = await FlatIndex.from(ids, vectors);
    const expected = onCpu.searchSync(asked, { k });
    expectSame(await index.search(asked, { k }), expected);
    expectSame(await index.search(asked.to('cuda'), { k }), expected);
    expect((await matrix.data())[5]).toBe(vectors[5]);
  });
});

describe('a device that fails', () => {
  it('is refused before anything is made', async () => {
    await expect(FlatIndex.from(ids, vectors, { device: 'cuda:7' })).rejects.toMatchObject({ code: 'ERR_DEVICE' });
    await expect(FlatIndex.from(ids, vectors, { device: 'gpu' })).rejects.toMatchObject({ code: 'ERR_ARGUMENT' });
    await expect(FlatIndex.from(ids, vectors, { device: 'cuda', deviceBytes: 0 })).rejects.toMatchObject({
      code: 'ERR_RANGE',
    });
  });

  it('leaves the index as it was', async () => {
    using onCpu = await FlatIndex.from(ids, vectors);
    const expected = onCpu.searchSync(queries, { k });
    using index = await FlatIndex.from(ids, vectors, { device: 'cuda' });
    set(allocation, 2);
    await expect(index.search(queries, { k })).rejects.toMatchObject({ code: 'ERR_MEMORY' });
    expectSame(await index.search(queries, { k }), expected);
    // Memory that is short when vectors are placed leaves them on the host.
    set(allocation, 1);
    using second = await FlatIndex.from(ids, vectors, { device: 'cuda' });
    set(allocation, 0);
    expectSame(await second.search(queries, { k }), expected);
    set(grid, 1);
    await expect(second.search(queries, { k })).rejects.toMatchObject({ code: 'ERR_DEVICE_LOST' });
    await expect(second.search(queries, { k })).rejects.toMatchObject({ code: 'ERR_DEVICE_LOST' });
    expectSame(await onCpu.search(queries, { k }), expected);
    set(recover, 1);
    expectSame(await second.search(queries, { k }), expected);
  });
});
