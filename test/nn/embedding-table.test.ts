import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import {
  type EmbeddingInit,
  EmbeddingTable,
  type EmbeddingTableOptions,
  full,
  setThreads,
  tensor,
  threads,
  writeSafetensors,
} from '../../lib/index.js';
import { numbers } from '../models/suite.js';
import { type Bags, denseGradient } from '../reference/embedding.js';

const [rows, cols] = [9, 11];
const next = numbers(5);
const matrix = (n: number) =>
  Array.from({ length: n }, () => Array.from({ length: cols }, () => Math.fround(next() - 0.5)));
const rejects = (promise: Promise<unknown>, code: string) => expect(promise).rejects.toMatchObject({ code });

/** The optimizers by their formulas, on a dense gradient. */
function referenceStep(
  table: number[][],
  gradient: number[][],
  touched: ReadonlySet<number>,
  state: { s: number[]; m: number[][]; v: number[][] },
  { optimizer, learningRate, epsilon, beta1, beta2 }: Required<EmbeddingTableOptions>,
  t: number,
) {
  for (const r of touched) {
    const g = gradient[r]!;
    state.s[r]! += g.reduce((a, x) => a + x * x, 0) / cols;
    for (let c = 0; c < cols; ++c) {
      if (optimizer === 'sgd') table[r]![c]! -= learningRate * g[c]!;
      if (optimizer === 'adagrad') table[r]![c]! -= (learningRate * g[c]!) / (Math.sqrt(state.s[r]!) + epsilon);
      if (optimizer !== 'adam') continue;
      state.m[r]![c] = beta1 * state.m[r]![c]! + (1 - beta1) * g[c]!;
      state.v[r]![c] = beta2 * state.v[r]![c]! + (1 - beta2) * g[c]! ** 2;
      const [m, v] = [state.m[r]![c]! / (1 - beta1 ** t), state.v[r]![c]! / (1 - beta2 ** t)];
      table[r]![c]! -= (learningRate * m) / (Math.sqrt(v) + epsilon);
    }
  }
}

describe('EmbeddingTable', () => {
  it.each(['sgd', 'adagrad', 'adam'] as const)('follows the formulas of %s over steps', async (optimizer) => {
    const start = matrix(rows);
    const table = await EmbeddingTable.from(tensor(start), { optimizer, learningRate: 0.1, epsilon: 1e-6 });
    const exact = start.map((row) => [...row]);
    const zeros = () => start.map((row) => row.map(() => 0));
    const state = { s: Array(rows).fill(0), m: zeros(), v: zeros() };
    for (let t = 1; t <= 6; ++t) {
      const ids = Array.from({ length: 10 }, () => Math.floor(next() * (rows - 1)));
      const mode = (['sum', 'mean', 'max'] as const)[t % 3]!;
      const bags: Bags = { ids, offsets: [0, 4, 4, 10], mode, paddingIndex: 2 };
      const dOut = matrix(3);
      const gradient = denseGradient(exact, bags, dOut);
      const touched = new Set(ids.filter((id) => id !== 2));
      referenceStep(exact, gradient, touched, state, table.options, t);
      await table.backward(tensor(dOut), Int32Array.from(ids), Int32Array.from(bags.offsets), {
        mode,
        paddingIndex: 2,
      });
    }
    expect(table.step).toBe(6);
    const got = await (await table.lookup(Int32Array.from(exact.keys()))).data();
    for (const [i, x] of exact.flat().entries()) expect(got[i]).toBeCloseTo(x, 4);
    expect([...got].slice((rows - 1) * cols)).toEqual(start[rows - 1]); // never looked up: not touched
  });

  it('goes on from a snapshot as if it had never stopped', async () => {
    const options = { optimizer: 'adam', learningRate: 0.05 } as const;
    const [ids, dOut] = [Int32Array.of(1, 3, 3), tensor(matrix(3))];
    const one = await EmbeddingTable.from(tensor(matrix(rows), { dtype: 'bfloat16' }), options);
    await one.backward(dOut, ids);
    const two = await EmbeddingTable.from(await one.snapshot(), options);
    await one.backward(dOut, ids);
    await two.backward(dOut, ids);
    const [a, b] = [await one.snapshot(), await two.snapshot()];
    expect(a.step).toBe(2);
    expect(Object.keys(a.state)).toEqual(['means', 'squares']);
    expect(b.table.dataSync()).toEqual(a.table.dataSync());
    expect(b.state.squares!.dataSync()).toEqual(a.state.squares!.dataSync());
    await rejects(EmbeddingTable.from(a, { optimizer: 'adagrad' }), 'ERR_ARGUMENT');
  });

  it('starts from random rows that depend on the seed, the row and the column alone', async () => {
    const before = threads();
    const draw = async (rowCount: number, options: EmbeddingInit) => {
      const { table } = await (await EmbeddingTable.create([rowCount, 30], options)).snapshot();
      return { dtype: table.dtype, values: [...(table.dataSync() as Float32Array)] };
    };
    const moments = (x: readonly number[]) => {
      const mean = x.reduce((a, b) => a + b, 0) / x.length;
      const moment = (k: number) => x.reduce((a, b) => a + (b - mean) ** k, 0) / x.length;
      return { mean, std: Math.sqrt(moment(2)), kurtosis: moment(4) / moment(2) ** 2 };
    };
    const normal = await draw(2000, { std: 0.5, seed: 3 });
    // Of 60,000 draws; the standard deviations of these estimates are 0.002, 0.0014 and 0.02 (0.009 when uniform).
    const n = moments(normal.values);
    expect([Math.abs(n.mean) < 0.01, Math.abs(n.std - 0.5) < 0.007, Math.abs(n.kurtosis - 3) < 0.1]).toEqual(
      Array(3).fill(true),
    );
    const uniform = await draw(2000, { init: 'uniform', std: 0.5, seed: 3 });
    const u = moments(uniform.values);
    expect([Math.abs(u.mean) < 0.01, Math.abs(u.std - 0.5) < 0.007, Math.abs(u.kurtosis - 1.8) < 0.05]).toEqual(
      Array(3).fill(true),
    );
    expect(Math.max(...uniform.values.map(Math.abs))).toBeLessThanOrEqual(0.5 * Math.sqrt(3));
    const neighbours = normal.values.slice(1).reduce((a, x, i) => a + x * normal.values[i]!, 0) / 0.25 / 60_000;
    expect(Math.abs(neighbours)).toBeLessThan(0.02); // the correlation of neighbours: 0, give or take 0.004
    setThreads(1);
    expect((await draw(50, { std: 0.5, seed: 3 })).values).toEqual(normal.values.slice(0, 50 * 30));
    setThreads(before);
    expect((await draw(50, { std: 0.5, seed: 4 })).values).not.toEqual(normal.values.slice(0, 50 * 30));
    const half = await draw(50, { std: 0.5, seed: 3, dtype: 'bfloat16' });
    expect(half.dtype).toBe('bfloat16');
    const rounded = tensor(Float32Array.from(normal.values.slice(0, 1500))).cast('bfloat16');
    expect(half.values).toEqual([...rounded.dataSync()]);
    await rejects(EmbeddingTable.create([3, 0]), 'ERR_RANGE');
    await rejects(EmbeddingTable.create([3] as never), 'ERR_ARGUMENT');
    await rejects(EmbeddingTable.create([3, 2], { std: -1 }), 'ERR_RANGE');
    await rejects(EmbeddingTable.create([3, 2], { init: 'zeros' as never }), 'ERR_ARGUMENT');
    await rejects(EmbeddingTable.create([3, 2], { mean: 1 } as never), 'ERR_ARGUMENT');
  });

  it.each(['sgd', 'adagrad', 'adam'] as const)('comes back from its file, %s and all', async (optimizer) => {
    const path = join(mkdtempSync(join(tmpdir(), 'topknot-')), 'table.safetensors');
    const [ids, dOut] = [Int32Array.of(1, 3, 3), tensor(matrix(3))];
    const one = await EmbeddingTable.create([rows, cols], { optimizer, learningRate: 0.05, dtype: 'float16' });
    await one.backward(dOut, ids);
    await one.save(path);
    const two = await EmbeddingTable.load(path);
    expect([two.options, two.step, two.dtype, two.shape]).toEqual([one.options, 1, 'float16', [rows, cols]]);
    await one.backward(dOut, ids);
    await two.backward(dOut, ids);
    const [a, b] = [await one.snapshot(), await two.snapshot()];
    expect(b.table.dataSync()).toEqual(a.table.dataSync());
    for (const name of Object.keys(a.state)) expect(b.state[name]!.dataSync()).toEqual(a.state[name]!.dataSync());

    const other = join(path, '..', 'other.safetensors');
    await writeSafetensors(other, [['table', a.table]]);
    await rejects(EmbeddingTable.load(other), 'ERR_FORMAT');
    const metadata = { format: 'topknot', version: '1', model: 'embedding-table', step: '1' };
    const options = JSON.stringify({ ...one.options, optimizer: 'adagrad' });
    await writeSafetensors(other, [['table', a.table]], { metadata: { ...metadata, options } });
    await rejects(EmbeddingTable.load(other), 'ERR_FORMAT'); // no state
    await writeSafetensors(other, [['table', a.table]], { metadata: { ...metadata, options: '{"optimizer":' } });
    await rejects(EmbeddingTable.load(other), 'ERR_FORMAT');
    await rejects(EmbeddingTable.load(join(path, '..', 'none.safetensors')), 'ERR_IO');
  });

  it('orders lookups and updates by their calls, and refuses a second update', async () => {
    const table = await EmbeddingTable.from(full([4, 3], { value: 1 }), { optimizer: 'sgd', learningRate: 1 });
    const dOut = full([1, 3], { value: 0.25 });
    const ids = Int32Array.of(2);
    const before = table.lookup(ids);
    const update = table.backward(dOut, ids);
    const after = table.bag(ids, Int32Array.of(0, 1));
    const snapshot = table.snapshot();
    const refused = table.backward(dOut, ids);
    ids.fill(99); // copied at the calls
    dOut.dispose();
    await rejects(refused, 'ERR_BUSY');
    await update;
    expect([...(await (await before).data())]).toEqual([1, 1, 1]);
    expect([...(await (await after).data())]).toEqual([0.75, 0.75, 0.75]);
    expect((await snapshot).step).toBe(1);
    await table.backward(full([1, 3]), Int32Array.of(0)); // free again
    expect(table.step).toBe(2);
  });

  it('leaves everything as it was when a step fails', async () => {
    const start = matrix(rows);
    const source = tensor(start);
    const table = await EmbeddingTable.from(source, {});
    const dOut = matrix(2);
    await rejects(table.backward(tensor(dOut), Int32Array.of(1, rows)), 'ERR_RANGE');
    await rejects(
      table.backward(tensor([...dOut.slice(1), Array(cols).fill(Number.NaN)]), Int32Array.of(1, 2)),
      'ERR_VALUE',
    );
    await rejects(table.backward(tensor(dOut), Int32Array.of(1)), 'ERR_SHAPE');
    const { table: now, state, step } = await table.snapshot();
    expect([...now.dataSync()]).toEqual(start.flat());
    expect([...state.sums!.dataSync()]).toEqual(Array(rows).fill(0));
    expect(step).toBe(0);
    await table.backward(tensor(dOut), Int32Array.of(1, 2));
    expect([...source.dataSync()]).toEqual(start.flat()); // the start is a copy
  });

  it.each(['float16', 'bfloat16'] as const)(
    'rounds %s so that small steps add up, the same at any thread count',
    async (dtype) => {
      const before = threads();
      const run = async (count: number, seed: number) => {
        setThreads(count);
        const table = await EmbeddingTable.from(full([300, 64], { dtype, value: 1 }), {
          optimizer: 'sgd',
          learningRate: 1,
          seed,
        });
        const ids = Int32Array.from({ length: 300 }, (_, i) => i);
        const dOut = full([300, 64], { value: 2 ** -14 }); // far below half the spacing at 1
        for (let t = 0; t < 64; ++t) await table.backward(dOut, ids);
        return (await table.snapshot()).table.dataSync() as Float32Array;
      };
      const [one, many, other] = [await run(1, 1), await run(5, 1), await run(5, 2)];
      setThreads(before);
      const mean = one.reduce((a, x) => a + x, 0) / one.length;
      // The error of the mean of 19,200 values, each a sum of 64 roundings: about 0.0002 for bfloat16.
      expect(Math.abs(mean - (1 - 64 * 2 ** -14))).toBeLessThan(0.001);
      expect(Buffer.from(many.buffer).equals(Buffer.from(one.buffer))).toBe(true);
      expect(Buffer.from(other.buffer).equals(Buffer.from(one.buffer))).toBe(false);
    },
  );

  it('refuses what it is not, and use after dispose', async () => {
    await rejects(EmbeddingTable.from(tensor([1, 2])), 'ERR_SHAPE');
    await rejects(EmbeddingTable.from(tensor([[1]], { dtype: 'int8' }) as never), 'ERR_DTYPE');
    await rejects(EmbeddingTable.from(tensor([[1]]), { learningRate: 0 }), 'ERR_RANGE');
    await rejects(EmbeddingTable.from(tensor([[1]]), { beta1: 1 }), 'ERR_RANGE');
    await rejects(EmbeddingTable.from(tensor([[1]]), { rate: 1 } as never), 'ERR_ARGUMENT');
    const table = await EmbeddingTable.from(tensor([[1]]));
    const last = table.lookup(Int32Array.of(0));
    table.dispose();
    expect([...(await (await last).data())]).toEqual([1]);
    await rejects(table.lookup(Int32Array.of(0)), 'ERR_DISPOSED');
    await rejects(table.backward(tensor([[1]]), Int32Array.of(0)), 'ERR_DISPOSED');
  });
});
