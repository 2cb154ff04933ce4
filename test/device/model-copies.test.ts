// What models keep on the emulated GPUs: given back when it is replaced, made anew where it was lost or had no room.
import { openSync, readSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, expect, it } from 'vitest';
import { ALS, device, EmbeddingTable, full, matmul, memory, scope, type Tensor } from '../../lib/index.js';
import { placed } from '../../lib/models/placed.js';
import { interactionsOf, triplets } from '../models/suite.js';
import { settledMemory } from '../reference/memory.js';

// The counters of native/test/simt/faults.h. The plugin maps the file when it is first used.
const path = join(tmpdir(), `topknot-copies-${process.pid}`);
const file = openSync(path, 'w+');
writeSync(file, Buffer.alloc(32));
process.env.TOPKNOT_SIMT_FAULTS = path;
const places = { allocation: 0, grid: 8, recover: 16 };
const set = (counter: keyof typeof places, n: number) =>
  writeSync(file, BigInt64Array.of(BigInt(n)), 0, 8, places[counter]);
function get(counter: keyof typeof places): number {
  const number = new BigInt64Array(1);
  readSync(file, number, 0, 8, places[counter]);
  return Number(number[0]);
}
afterEach(() => {
  for (const counter of ['allocation', 'grid'] as const) set(counter, 0);
  set('recover', 1);
  device('cuda'); // the next call recovers
});

const data = await interactionsOf(triplets(23, 17));
const user = data.users.at(0);
/** Polled, for what is given back is given back behind the work that is queued; nothing here collects garbage. */
const cudaBytes = () => memory().cudaBytes;

it('gives the copies of a replaced fit back at once', async () => {
  const before = (await settledMemory()).cudaBytes;
  const model = await new ALS({ factors: 8, iterations: 1, device: 'cuda' }).fit(data);
  const once = (await settledMemory()).cudaBytes;
  expect(once).toBeGreaterThan(before);
  for (let i = 0; i < 4; i++) {
    await model.partialFit(data);
    await expect.poll(cudaBytes).toBe(once);
  }
  model.dispose();
  await expect.poll(cudaBytes).toBe(before);
});

it('keeps what a reader of the replaced fit has, until it ends', async () => {
  class Open extends ALS {
    during<R>(read: (items: Tensor<'float32'>) => Promise<R>): Promise<R> {
      return this.reading((state) => read(placed(state.itemFactors, 'cuda:0')));
    }
  }
  const model = new Open({ factors: 8, iterations: 1, device: 'cuda' });
  await model.fit(data);
  let held: Tensor<'float32'> | undefined;
  await model.during(async (items) => {
    held = items;
    await model.fit(data);
    expect(items.disposed).toBe(false);
    expect((await items.data()).length).toBe(items.size);
  });
  expect(held!.disposed).toBe(true);
  model.dispose();
});

it("answers elsewhere when the GPU of 'auto' is lost", async () => {
  const model = await new ALS({ factors: 8, iterations: 1, device: 'auto' }).fit(data);
  const expected = await model.recommend(user);
  expect(device('auto')).toBe('cuda:0');
  set('grid', 1);
  const product = scope(() => matmul(full([2, 2], { device: 'cuda' }), full([2, 2], { device: 'cuda' })));
  await expect(product.data()).rejects.toMatchObject({ code: 'ERR_DEVICE_LOST' });
  product.dispose();
  expect(device('auto')).toBe('cuda:1');
  expect(await model.recommend(user)).toEqual(expected);
  expect((await model.recommend({ history: [data.items.at(0)] })).length).toBeGreaterThan(0);
  model.dispose();
});

it('keeps a fit whose copies do not fit on the GPU', async () => {
  const options = { factors: 8, iterations: 1, device: 'cuda' } as const;
  const whole = await new ALS(options).fit(data);
  const expected = await whole.recommend(user);
  whole.dispose();
  let kept = 0;
  for (let n = 1, came = true; came; n++) {
    const model = new ALS(options);
    set('allocation', n);
    const outcome = await model.fit(data).catch((error) => error);
    came = get('allocation') === 0;
    set('allocation', 0);
    if (outcome === model && came) {
      kept++;
      set('allocation', 1);
      await expect(model.recommend(user)).rejects.toMatchObject({ code: 'ERR_MEMORY' });
      expect(await model.recommend(user)).toEqual(expected);
    }
    model.dispose();
  }
  expect(kept).toBe(2); // users and items
});

it('keeps a table out of the way of the same table on the CPU', async () => {
  const before = (await settledMemory()).cudaBytes;
  set('allocation', 2); // the first is the table, then comes its state
  using table = await EmbeddingTable.create([50, 8], { device: 'cuda' });
  await expect.poll(cudaBytes).toBe(before);
  expect(table.step).toBe(0);
});
