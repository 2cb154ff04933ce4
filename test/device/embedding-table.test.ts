// EmbeddingTable on the emulated GPU: the same steps as on the CPU.
import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { EmbeddingTable, tensor } from '../../lib/index.js';

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

it('refuses devices that are not there before anything is made', async () => {
  await expect(EmbeddingTable.create([2, 2], { device: 'cuda:7' })).rejects.toMatchObject({ code: 'ERR_DEVICE' });
  await expect(EmbeddingTable.load('/nowhere', { device: 'gpu' })).rejects.toMatchObject({ code: 'ERR_ARGUMENT' });
});
