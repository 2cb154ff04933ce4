// Calls that would quietly do something else, for both indexes: each was once let through.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import {
  ALS,
  FlatIndex,
  HnswIndex,
  Ids,
  readSafetensors,
  tensor,
  topKSync,
  writeSafetensors,
} from '../../lib/index.js';
import { numbers } from '../models/suite.js';

const dir = mkdtempSync(join(tmpdir(), 'topknot-refusals-'));
afterAll(() => rmSync(dir, { recursive: true }));
const next = numbers(1);
const vectors = (n: number) => Float32Array.from({ length: n * 4 }, () => next() - 0.5);

type Make = (ids: string[] | Ids<string>, vectors: Float32Array) => Promise<HnswIndex<string>>; // or what has its methods
const makers: [string, Make][] = [
  ['FlatIndex', (ids, v) => FlatIndex.from(ids as string[], v) as unknown as ReturnType<Make>],
];
if (HnswIndex.available) makers.push(['HnswIndex', (ids, v) => HnswIndex.from(ids as string[], v)]);

describe.each(makers)('%s', (_name, make) => {
  it('refuses ids that come twice, however they are given', async () => {
    const twice = new Ids(['a', 'b', 'a']);
    await expect(make(twice, vectors(3))).rejects.toMatchObject({ code: 'ERR_VALUE' });
    using found = await make(['a', 'b', 'c'], vectors(3));
    await expect(found.remove(twice)).rejects.toMatchObject({ code: 'ERR_VALUE' });
    await expect(found.update(twice, vectors(3))).rejects.toMatchObject({ code: 'ERR_VALUE' });
    await expect(found.add(new Ids(['x', 'x']), vectors(2))).rejects.toMatchObject({ code: 'ERR_VALUE' });
    expect(found.size).toBe(3);
    await found.add(['d'], vectors(1));
    expect(found.searchSync(vectors(1), { k: 4 }).ids.length).toBe(4);
  });

  it('refuses filters that would let everything through', async () => {
    using found = await make(['a', 'b', 'c'], vectors(3));
    for (const filter of [{ denny: ['a'] }, ['a'], new Set(['a']), () => true, 5, 'a', null]) {
      const options = { k: 1, filter: filter as never };
      expect(() => found.searchSync(vectors(1), options)).toThrow(expect.objectContaining({ code: 'ERR_ARGUMENT' }));
      await expect(found.search(vectors(1), options)).rejects.toMatchObject({ code: 'ERR_ARGUMENT' });
    }
  });
});

it.runIf(HnswIndex.available)('a change that is stopped too late counts as done', async () => {
  const many = Array.from({ length: 600 }, (_, i) => `id ${i}`);
  for (let round = 0; round < 20; round++) {
    using index = await HnswIndex.from(many, vectors(600), { connectivity: 8 });
    const [a, b] = [vectors(1), vectors(1)];
    const stop = () => {
      throw new Error('stop');
    };
    const added = await index.add(['A'], a, { onProgress: stop }).then(
      () => true,
      () => false,
    );
    expect(index.has('A')).toBe(added);
    expect(index.size).toBe(added ? 601 : 600);
    await index.add(['B'], b);
    const { ids, scores } = index.searchSync(b, { k: 1, filter: { allow: ['B'] } });
    expect(ids).toEqual(['B']);
    expect(scores[0]).toBeCloseTo(
      b.reduce((sum, x) => sum + x * x, 0),
      4,
    );
    if (added) expect(index.searchSync(a, { k: 1, filter: { allow: ['A'] } }).ids).toEqual(['A']);
    for (const id of index.searchSync(a, { k: 3 }).ids) expect(id).toBeTypeOf('string');
  }
});

it('refuses names of devices that none can have, where they are given', async () => {
  for (const device of ['gpu', 'cuda:x', 5] as string[]) {
    const refused = { name: 'TopknotError', code: 'ERR_ARGUMENT', message: expect.stringContaining('device') };
    expect(() => new ALS({ device })).toThrow(expect.objectContaining(refused));
    await expect(ALS.load('nowhere', { device })).rejects.toMatchObject(refused);
  }
});

it('topK refuses a filter by ids, which is one by rows', () => {
  const [q, items] = [tensor(vectors(1), { shape: [1, 4] }), tensor(vectors(3), { shape: [3, 4] })];
  expect(() => topKSync(q, items, 2, { filter: { deny: [0, 1] } as never })).toThrow(
    expect.objectContaining({ code: 'ERR_ARGUMENT' }),
  );
});

it('writes no file that cannot be read again, and leaves the one that is there', async () => {
  const path = join(dir, 'good.safetensors');
  const t = tensor(Float32Array.of(1, 2));
  await writeSafetensors(path, [['a', t]]);
  const bad: [unknown, unknown][] = [
    [
      [
        ['a', t],
        ['a', t],
      ],
      {},
    ],
    [[['__metadata__', t]], {}],
    [[['a', t]], { metadata: { epoch: 3 } }],
    [{ a: t }, {}],
    [[['a', 5]], {}],
    [[['a', t]], { metadat: {} }],
  ];
  for (const [tensors, options] of bad)
    await expect(writeSafetensors(path, tensors as never, options as never)).rejects.toMatchObject({
      code: 'ERR_ARGUMENT',
    });
  expect([...(await readSafetensors(path)).tensors.keys()]).toEqual(['a']);
});

it.runIf(HnswIndex.available)('an HnswIndex on a GPU is refused by a message that names FlatIndex', async () => {
  const refusal = {
    code: 'ERR_DEVICE',
    message: expect.stringMatching(/'cuda': .* CPU alone; a FlatIndex with this device/),
  };
  const options = { device: 'cuda' } as object;
  await expect(HnswIndex.from(['a'], vectors(1), options)).rejects.toMatchObject(refusal);
  await expect(HnswIndex.load('nowhere', options)).rejects.toMatchObject(refusal);
  for (const device of ['cpu', 'auto']) {
    using index = await HnswIndex.from(['a'], vectors(1), { device } as object);
    expect(index.size).toBe(1);
  }
});
