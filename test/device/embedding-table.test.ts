// EmbeddingTable on the emulated GPU: the same steps as on the CPU.
import { mkdtempSync, openSync, readSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import {
  EmbeddingTable,
  embeddingBag,
  embeddingBagSync,
  gather,
  gatherSync,
  mapSafetensors,
  memory,
  quantizeRows,
  type Tensor,
  tensor,
  writeSafetensors,
} from '../../lib/index.js';
import { settledMemory } from '../reference/memory.js';

// The counters of native/test/simt/faults.h. The plugin maps the file when it is first used.
const faults = join(mkdtempSync(join(tmpdir(), 'topknot-')), 'faults');
const file = openSync(faults, 'w+');
writeSync(file, Buffer.alloc(32));
process.env.TOPKNOT_SIMT_FAULTS = faults;
const set = (place: number, n: number) => writeSync(file, BigInt64Array.of(BigInt(n)), 0, 8, place);
function get(place: number): number {
  const number = new BigInt64Array(1);
  readSync(file, number, 0, 8, place);
  return Number(number[0]);
}

const near = (a: ArrayLike<number>, b: ArrayLike<number>, tolerance: number) =>
  expect(Array.from(a, (x, i) => Math.abs(x - b[i]!)).every((error) => error <= tolerance)).toBe(true);

it.each(['sgd', 'adagrad', 'adam'] as const)(
  'learns by %s as on the CPU, and goes on from its file',
  async (optimizer) => {
    const options = { optimizer, learningRate: 0.1, seed: 3 };
    const [cpu, gpu] = await Promise.all([
      EmbeddingTable.create([9, 12], options),
      EmbeddingTable.create([9, 12], { ...options, device: 'cuda' }),
    ]);
    expect([cpu.device, gpu.device]).toEqual(['cpu', 'cuda:0']);
    const [ids, offsets] = [Int32Array.of(4, 1, 4, 0, 8), Int32Array.of(0, 2, 5)];
    let table = gpu;
    for (let step = 0; step < 4; step++) {
      const mode = (['sum', 'mean', 'max'] as const)[step % 3]!;
      const gradient = tensor(
        Float32Array.from({ length: 24 }, (_, i) => Math.sin(i + step)),
        { shape: [2, 12] },
      );
      const [a, b] = await Promise.all([cpu.bag(ids, offsets, { mode }), table.bag(ids, offsets, { mode })]);
      expect(b.device).toBe('cuda:0');
      near(await b.data(), await a.data(), 1e-6);
      await cpu.backward(gradient, ids, offsets, { mode });
      await expect(table.backward(gradient, ids, offsets, { mode })).rejects.toMatchObject({
        code: 'ERR_DEVICE',
        message: "gradient: expected to be on device 'cuda:0', as table is, but is on 'cpu'",
      });
      await table.backward(gradient.to('cuda'), ids, offsets, { mode });
      const rowsOf = async (from: EmbeddingTable) => Array.from(await (await from.lookup(ids)).data(), Number);
      near(await rowsOf(table), await rowsOf(cpu), 1e-5);
      if (step !== 1) continue;
      const path = join(mkdtempSync(join(tmpdir(), 'topknot-')), 'table.safetensors');
      await table.save(path);
      table.dispose();
      table = await EmbeddingTable.load(path, { device: 'cuda:1' });
      expect([table.device, table.step]).toEqual(['cuda:1', 2]);
      const snapshot = await table.snapshot();
      table.dispose();
      const state = Object.fromEntries(Object.entries(snapshot.state).map(([k, t]) => [k, t.to('cuda')]));
      table = await EmbeddingTable.from(
        { ...snapshot, table: snapshot.table.to('cuda'), state } as typeof snapshot,
        options,
      );
      expect([table.device, table.step]).toEqual(['cuda:0', 2]);
    }
  },
);

it.each(['float32', 'float16', 'bfloat16'] as const)('begins with the numbers of the CPU: %s', async (dtype) => {
  for (const init of ['normal', 'uniform'] as const) {
    const [cpu, gpu] = await Promise.all(
      [{}, { device: 'cuda' }].map((where) => EmbeddingTable.create([50, 7], { dtype, init, seed: 5, ...where })),
    );
    const [a, b] = [await cpu!.snapshot(), await gpu!.snapshot()];
    expect(b.table.device).toBe('cuda:0');
    expect(await b.table.data()).toEqual(await a.table.data());
    expect([...(await b.state.sums!.data())]).toEqual(Array(50).fill(0));
  }
});

it('is made in host memory when the GPU has none left', async () => {
  for (const n of [1, 2]) {
    set(0, n);
    const table = await EmbeddingTable.create([5, 4], { device: 'cuda' });
    expect([table.device, (await table.snapshot()).table.device]).toEqual(['cuda:0', 'cpu']);
    expect((await table.lookup(Int32Array.of(1))).device).toBe('cuda:0');
  }
});

it('refuses devices that are not there before anything is made', async () => {
  await expect(EmbeddingTable.create([2, 2], { device: 'cuda:7' })).rejects.toMatchObject({ code: 'ERR_DEVICE' });
  await expect(EmbeddingTable.load('/nowhere', { device: 'gpu' })).rejects.toMatchObject({ code: 'ERR_ARGUMENT' });
});

describe.each([
  ['float32', 'adagrad'],
  ['bfloat16', 'adam'],
  ['float16', 'sgd'],
] as const)('a table of %s that is larger than the memory of the GPU, with %s', (dtype, optimizer) => {
  const options = { optimizer, learningRate: 0.1, seed: 3, device: 'cuda' };
  const [ids, offsets] = [Int32Array.of(4, 1, 4, 0, 8, 1, 7), Int32Array.of(0, 2, 2, 7)];
  const bags = [{ mode: 'mean' }, { mode: 'max', paddingIndex: 4 }, { paddingIndex: 0 }] as const;
  const gradientOf = (step: number) =>
    tensor(
      Float32Array.from({ length: 36 }, (_, i) => Math.sin(i + step)),
      { shape: [3, 12], device: 'cuda' },
    );

  it('learns what one in that memory learns, bit for bit, and only its rows go there', async () => {
    const before = (await settledMemory()).cudaBytes;
    const small = await EmbeddingTable.create([9, 12], { dtype, ...options, deviceBytes: 1 });
    expect([small.device, memory().cudaBytes]).toEqual(['cuda:0', before]);
    const whole = await EmbeddingTable.create([9, 12], { dtype, ...options });
    expect(memory().cudaBytes).toBeGreaterThan(before);
    const all = Int32Array.from({ length: 9 }, (_, i) => i);
    for (const [step, bag] of bags.entries()) {
      const [a, b] = await Promise.all([whole.bag(ids, offsets, bag), small.bag(ids, offsets, bag)]);
      expect(b.device).toBe('cuda:0');
      expect([...(await b.data())]).toEqual([...(await a.data())]);
      await whole.backward(gradientOf(step), ids, offsets, bag);
      await small.backward(gradientOf(step), ids, offsets, bag);
      const [x, y] = await Promise.all([whole.lookup(all), small.lookup(all)]);
      expect([y.device, y.dtype]).toEqual(['cuda:0', dtype]);
      expect(await y.data()).toEqual(await x.data());
    }
    const [a, b] = [await whole.snapshot(), await small.snapshot()];
    expect([b.table.device, b.step]).toEqual(['cpu', 3]);
    expect(await b.table.data()).toEqual(await a.table.data());
    for (const [name, state] of Object.entries(a.state))
      expect([...(await b.state[name]!.data())]).toEqual([...(await state.data())]);
    await expect(small.lookup(Int32Array.of(1, 9))).rejects.toMatchObject({ code: 'ERR_RANGE' });
    const none = await small.bag(Int32Array.of(), Int32Array.of(0, 0));
    expect([...(await none.data())]).toEqual(Array(12).fill(0));
    await small.backward(
      tensor(Float32Array.of(), { shape: [0, 12], device: 'cuda' }),
      Int32Array.of(),
      Int32Array.of(0),
    );
  });

  it('goes on from snapshots and files, on the GPU or beside it', async () => {
    const start = await EmbeddingTable.create([9, 12], { dtype, ...options, deviceBytes: 1 });
    await start.backward(gradientOf(0), ids, offsets);
    const path = join(mkdtempSync(join(tmpdir(), 'topknot-')), 'table.safetensors');
    await start.save(path);
    const { device: _, ...rest } = options;
    const snapshot = await start.snapshot();
    const tables = await Promise.all([
      start,
      EmbeddingTable.from(snapshot, options),
      EmbeddingTable.from(snapshot, { ...options, deviceBytes: 1 }),
      EmbeddingTable.load(path, { device: 'cuda' }),
      EmbeddingTable.load(path, { device: 'cuda', deviceBytes: 1 }),
    ]);
    const rows: number[][] = [];
    for (const table of tables) {
      await table.backward(gradientOf(1), ids, offsets);
      rows.push(Array.from(await (await table.lookup(ids)).data(), Number));
    }
    for (const other of rows) expect(other).toEqual(rows[0]);
    const onGpu = await tables[1]!.snapshot();
    expect(onGpu.table.device).toBe('cuda:0');
    for (const where of [{ device: 'cpu' }, { device: 'cuda:1' }, { device: 'cuda:1', deviceBytes: 1 }]) {
      const moved = await EmbeddingTable.from(onGpu, { ...rest, ...where });
      expect([moved.device, moved.step]).toEqual([where.device, 2]);
      expect(Array.from(await (await moved.lookup(ids)).data(), Number)).toEqual(rows[0]);
    }
  });
});

it('a step that finds no memory changes nothing', async () => {
  const table = await EmbeddingTable.create([9, 12], { optimizer: 'adam', device: 'cuda', deviceBytes: 1 });
  const [ids, gradient] = [
    Int32Array.of(4, 1, 4),
    tensor(new Float32Array(36).fill(1), { shape: [3, 12], device: 'cuda' }),
  ];
  const rows = async () => Array.from(await (await table.lookup(Int32Array.of(1, 4))).data(), Number);
  const before = await rows();
  for (let n = 1; ; n++) {
    set(0, n);
    const outcome = await table.backward(gradient, ids).catch((e: unknown) => e);
    const came = get(0) === 0;
    set(0, 0);
    if (!came) break;
    expect(outcome).toMatchObject({ code: 'ERR_MEMORY' });
    expect(table.step).toBe(0);
    expect(await rows()).toEqual(before);
  }
  expect(table.step).toBe(1);
  expect(await rows()).not.toEqual(before);
});

describe('option device of lookups', () => {
  it('sends the rows of a table on the CPU, of memory or of a file', async () => {
    const path = join(mkdtempSync(join(tmpdir(), 'topknot-')), 'rows.safetensors');
    const values = Float32Array.from({ length: 9 * 12 }, (_, i) => Math.cos(i));
    const table = tensor(values, { shape: [9, 12] });
    const quantized = await quantizeRows(table);
    await writeSafetensors(path, [
      ['table', table],
      ['data', quantized.data],
    ]);
    const { tensors } = await mapSafetensors(path);
    const [ids, offsets] = [Int32Array.of(4, 1, 4, 0, 8, 1, 7), Int32Array.of(0, 2, 2, 7)];
    const mapped = tensors.get('table') as typeof table;
    for (const rows of [table, mapped, quantized, { ...quantized, data: tensors.get('data') as Tensor<'int8'> }]) {
      const looked = gather(rows, ids, { device: 'cuda' });
      expect([looked.device, looked.shape]).toEqual(['cuda:0', [7, 12]]);
      expect(await looked.data()).toEqual(await gather(rows, ids).data());
      near(await gatherSync(rows, ids, { device: 'cuda:1' }).data(), await looked.data(), 0);
      const bags = { mode: 'mean', device: 'cuda' } as const;
      near(
        await embeddingBag(rows, ids, offsets, bags).data(),
        await embeddingBag(rows, ids, offsets, { mode: 'mean' }).data(),
        1e-6,
      );
      near(
        embeddingBagSync(rows, ids, offsets, bags).dataSync(),
        await embeddingBag(rows, ids, offsets, bags).data(),
        0,
      );
    }
  });

  it('refuses a table on another GPU, and devices that are not there', async () => {
    const table = tensor([[1, 2]], { device: 'cuda' });
    expect(() => gather(table, Int32Array.of(0), { device: 'cuda:1' })).toThrow(
      expect.objectContaining({
        code: 'ERR_DEVICE',
        message: "table: expected to be on device 'cuda:1' or on 'cpu' but is on 'cuda:0'",
      }),
    );
    expect(() => gather(table, Int32Array.of(0), { device: 'gpu' })).toThrow(
      expect.objectContaining({ code: 'ERR_ARGUMENT' }),
    );
    expect([...(await gather(table, Int32Array.of(0), { device: 'cuda:0' }).data())]).toEqual([1, 2]);
  });
});

it('refuses state on another device than the table at once', async () => {
  const { table, state, step } = await (await EmbeddingTable.create([3, 4])).snapshot();
  await expect(EmbeddingTable.from({ table: table.to('cuda'), state, step } as never)).rejects.toMatchObject({
    code: 'ERR_DEVICE',
    message: "start.state.sums: expected to be on device 'cuda:0', as start.table is, but is on 'cpu'",
  });
});
