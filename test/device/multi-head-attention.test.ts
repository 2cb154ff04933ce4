// MultiHeadAttention between devices. That it computes the same there is test/nn, which runs for the GPU too.
import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { full, MultiHeadAttention, tensor } from '../../lib/index.js';
import { draw } from './case.js';

describe('MultiHeadAttention', () => {
  it('moves, keeps its place, and comes back from a file anywhere', async () => {
    const layer = await MultiHeadAttention.create(8, 2, { seed: 3 });
    expect(layer.device).toBe('cpu');
    const there = layer.to('cuda:1');
    expect(there.device).toBe('cuda:1');
    expect(there.to('cuda:1')).toBe(there);
    const path = join(mkdtempSync(join(tmpdir(), 'topknot-')), 'layer.safetensors');
    await there.save(path);
    const loaded = await MultiHeadAttention.load(path, 2, { device: 'cuda' });
    expect(loaded.device).toBe('cuda:0');
    const made = await MultiHeadAttention.create(8, 2, { seed: 3, device: 'cuda' });
    for (const other of [loaded, made, await MultiHeadAttention.load(path, 2)])
      for (const [name, t] of layer.parameters)
        expect([name, await other.parameters.get(name)!.data()]).toEqual([name, await t.data()]);
  });

  it('leaves results and gradients where it is, the same as on the CPU', async () => {
    const cpu = await MultiHeadAttention.create(8, 2, { keyDim: 6, valueDim: 5 });
    const gpu = cpu.to('cuda');
    const [query, key, value, gradient] = [draw(2, 3, 8), draw(2, 4, 6), draw(2, 4, 5), draw(2, 3, 8)];
    const keyMask = tensor([1, 1, 0, 1, 1, 1, 1, 0], { dtype: 'uint8', shape: [2, 4] });
    const run = (layer: MultiHeadAttention) => {
      const [q, k, v, g] = [query, key, value, gradient].map((t) => t.to(layer.device));
      const result = layer.forward(q!, k!, v!, { keyMask: keyMask.to(layer.device) as never });
      const { parameters, query: dq, key: dk, value: dv } = layer.backward(g!, result);
      return [result.out, dq, dk!, dv!, ...parameters.values()];
    };
    const expected = run(cpu);
    for (const [i, t] of run(gpu).entries()) {
      expect(t.device).toBe('cuda:0');
      const exact = await expected[i]!.data();
      for (const [j, x] of (await t.data()).entries()) expect(x).toBeCloseTo(exact[j]!, 4);
    }
  });

  it('refuses what is elsewhere', async () => {
    const layer = await MultiHeadAttention.create(4, 1, { device: 'cuda' });
    const here = full([1, 2, 4]);
    const onDevice = (name: string, other: string) => ({
      code: 'ERR_DEVICE',
      message: `${name}: expected to be on device '${other}', as the layer is, but is on 'cpu'`,
    });
    expect(() => layer.forward(here)).toThrow(expect.objectContaining(onDevice('query', 'cuda:0')));
    expect(() => layer.forward(here.to('cuda'), here)).toThrow(expect.objectContaining(onDevice('key', 'cuda:0')));
    const result = layer.forward(here.to('cuda'));
    expect(() => layer.backward(here, result)).toThrow(expect.objectContaining(onDevice('outGradient', 'cuda:0')));
    const mixed = new Map(layer.parameters).set('in_proj_bias', full([12]));
    expect(() => new MultiHeadAttention(mixed, 1)).toThrow(expect.objectContaining({ code: 'ERR_DEVICE' }));
    expect(() => layer.to('cuda:9')).toThrow(expect.objectContaining({ code: 'ERR_DEVICE' }));
  });
});
