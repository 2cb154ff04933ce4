import { describe, expect, it } from 'vitest';
import { type DType, full, memory, scope, Tensor, tensor, trim } from '../../lib/index.js';
import { settledMemory } from '../reference/memory.js';

const refuses = (make: () => unknown, code: string, ...words: string[]) => {
  try {
    make();
  } catch (e) {
    expect(e).toMatchObject({ name: 'TopknotError', code });
    for (const word of words) expect((e as Error).message).toContain(word);
    expect((e as Error).stack).toContain('tensor.test.ts');
    return;
  }
  expect.unreachable('expected an error');
};

describe('making tensors', () => {
  it('from nested arrays', async () => {
    const t = tensor([[[1, 2]], [[3, 4]], [[5, 6]]]);
    expect([t.dtype, t.shape, t.size, t.device]).toEqual(['float32', [3, 1, 2], 6, 'cpu']);
    expect(await t.data()).toEqual(Float32Array.of(1, 2, 3, 4, 5, 6));
  });

  it.each<[DType, number[], ArrayLike<number | bigint>]>([
    ['float32', [0.1, -0], Float32Array.of(0.1, -0)],
    ['float64', [0.1, 1e300], Float64Array.of(0.1, 1e300)],
    ['float16', [0.1, 1e6], Float32Array.of(0.0999755859375, Number.POSITIVE_INFINITY)],
    ['bfloat16', [0.1, 1 / 3], Float32Array.of(0.10009765625, 0.333984375)],
    ['int8', [-128, 127], Int8Array.of(-128, 127)],
    ['uint8', [0, 255], Uint8Array.of(0, 255)],
    ['int32', [-2147483648, 2147483647], Int32Array.of(-2147483648, 2147483647)],
    ['int64', [-5, 2 ** 53], BigInt64Array.of(-5n, 2n ** 53n)],
    ['bool', [0, 1], Uint8Array.of(0, 1)],
  ])('%s holds what it should', async (dtype, values, want) => {
    expect(await tensor(values, { dtype }).data()).toEqual(want);
  });

  it('int64 keeps bigints beyond 2^53', async () => {
    expect(await tensor([2n ** 62n + 1n], { dtype: 'int64' }).data()).toEqual(BigInt64Array.of(2n ** 62n + 1n));
  });

  it('takes the dtype of a typed array, or converts', async () => {
    expect(tensor(Int32Array.of(1)).dtype).toBe('int32');
    expect(tensor(new Float64Array(1)).dtype).toBe('float64');
    expect(await tensor(Float64Array.of(1.5), { dtype: 'float32' }).data()).toEqual(Float32Array.of(1.5));
    expect(tensor(new Float32Array(6), { shape: [2, 3] }).shape).toEqual([2, 3]);
  });

  it('reads a view into a larger buffer', async () => {
    const whole = Float32Array.of(0, 1, 2, 3, 4);
    expect(await tensor(whole.subarray(2, 4)).data()).toEqual(Float32Array.of(2, 3));
  });

  it('tells TypeScript its dtype, and refuses another', () => {
    const t: Tensor = tensor([1, 2]);
    const same: Tensor<'float32'> = t.as('float32');
    expect(same).toBe(t);
    refuses(() => t.as('int32'), 'ERR_DTYPE', 'expected int32', 'received float32');
    refuses(() => t.as('float' as never), 'ERR_ARGUMENT', 'dtype', "'float'");
  });

  it('refuses what it cannot hold, naming the argument', () => {
    refuses(() => tensor([[1, 2], [3]]), 'ERR_SHAPE', 'data', '2 elements');
    refuses(() => tensor([[1], 2] as never), 'ERR_SHAPE', 'data');
    refuses(() => tensor(['1'] as never), 'ERR_ARGUMENT', 'data', "'1'");
    refuses(() => tensor('abc' as never), 'ERR_ARGUMENT', 'data', "'abc'");
    refuses(() => tensor(new Uint16Array(2) as never), 'ERR_DTYPE', 'Uint16Array');
    refuses(() => tensor([1, 2, 3], { shape: [2, 2] }), 'ERR_SHAPE', '4 elements', '3');
    refuses(() => tensor([1], { shape: [-1] }), 'ERR_SHAPE', '-1');
    refuses(() => tensor([1], { shape: [1, 1, 1, 1, 1, 1, 1, 1, 1] }), 'ERR_SHAPE');
    refuses(() => tensor([300], { dtype: 'uint8' }), 'ERR_RANGE', 'uint8', '300');
    refuses(() => tensor([Number.NaN], { dtype: 'int32' }), 'ERR_RANGE', 'int32');
    refuses(() => tensor([2 ** 63], { dtype: 'int64' }), 'ERR_RANGE');
    refuses(() => tensor([1], { dtype: 'float8' as never }), 'ERR_ARGUMENT', 'dtype', 'float8');
    refuses(() => full([2 ** 30, 2 ** 30]), 'ERR_SHAPE');
    refuses(() => full([2 ** 50]), 'ERR_MEMORY');
  });

  it('takes an array over shared memory', async () => {
    const shared = new Float32Array(new SharedArrayBuffer(16), 4, 2);
    shared.set([1, 2]);
    expect([...(await tensor(shared).data())]).toEqual([1, 2]);
  });
  it('refuses a detached array', () => {
    const array = new Float32Array(4);
    structuredClone(array.buffer, { transfer: [array.buffer] });
    refuses(() => tensor(array), 'ERR_ARGUMENT', 'detached');
  });

  it('reads shared memory and resizable buffers as long as they are at the time of the call', () => {
    const shared = new Float32Array(new SharedArrayBuffer(12)).fill(7);
    expect(tensor(shared).dataSync()).toEqual(Float32Array.of(7, 7, 7));
    // Node 20 has resizable buffers, the types of ES2023 have not.
    const Resizable = ArrayBuffer as unknown as new (
      bytes: number,
      options: object,
    ) => ArrayBuffer & { resize(n: number): void };
    const buffer = new Resizable(8, { maxByteLength: 64 });
    const tracking = new Float32Array(buffer);
    buffer.resize(16);
    expect(tensor(tracking).shape).toEqual([4]);
    buffer.resize(4);
    expect(tensor(tracking).shape).toEqual([1]);
  });

  it('refuses dimensions that overflow even where one of them is 0', () => {
    refuses(() => full([2 ** 40, 2 ** 40, 0]), 'ERR_SHAPE');
  });
});

describe('using tensors', () => {
  it('casts on the stream, and reading reports what went wrong', async () => {
    const t = tensor([1.9, -1.9]);
    expect(await t.cast('int8').data()).toEqual(Int8Array.of(1, -1));
    const poisoned = tensor([1, 1e9]).cast('int8');
    await expect(poisoned.cast('float32').data()).rejects.toMatchObject({ code: 'ERR_RANGE' });
  });

  it('data() is a copy: changing it changes nothing', async () => {
    for (const size of [3, 100_000]) {
      const t = full([size], { value: 5 });
      (await t.data())[0] = 9;
      t.dataSync()[0] = 9;
      expect((await t.data())[0]).toBe(5);
    }
  });

  it('copies its source before it returns', async () => {
    const source = new Float32Array(300_000).fill(1);
    const t = tensor(source).cast('float64');
    source.fill(2);
    structuredClone(source.buffer, { transfer: [source.buffer] });
    expect((await t.data()).every((x) => x === 1)).toBe(true);
  });

  it('reshapes without copying', async () => {
    const before = (await settledMemory()).hostBytes;
    const t = full([6], { value: 1 });
    expect(t.reshape([2, 3]).shape).toEqual([2, 3]);
    expect(memory().hostBytes - before).toBe(24);
    refuses(() => t.reshape([4]), 'ERR_SHAPE');
  });
});

describe('freeing tensors', () => {
  it('dispose frees at once and is final', async () => {
    const before = (await settledMemory()).hostBytes;
    const t = full([1000]);
    expect(memory().hostBytes - before).toBe(4000);
    t.dispose();
    t.dispose();
    expect(memory().hostBytes).toBe(before);
    expect(t.disposed).toBe(true);
    refuses(() => t.dataSync(), 'ERR_DISPOSED');
    await expect(t.data()).rejects.toMatchObject({ code: 'ERR_DISPOSED' });
  });

  it('keeps the memory of what was freed for the next, until trim()', async () => {
    await settledMemory();
    full([100_000]).dispose();
    expect(memory().hostKeptBytes).toBeGreaterThanOrEqual(400_000);
    expect(
      full([100_000])
        .dataSync()
        .every((x) => x === 0),
    ).toBe(true);
    trim();
    expect(memory().hostKeptBytes).toBeLessThan(400_000); // V8 may have freed something since
  });

  it('work in flight outlives dispose', async () => {
    const t = full([500_000], { value: 3 });
    const cast = t.cast('int32');
    const reading = cast.data();
    t.dispose();
    cast.dispose();
    expect((await reading)[499_999]).toBe(3);
  });

  it('scope frees everything but what it returns', async () => {
    const before = (await settledMemory()).hostBuffers;
    const kept = scope(() => {
      const a = full([10]);
      return { a: a.cast('int32'), b: scope(() => full([2])) };
    });
    expect(kept.a.dataSync().length).toBe(10);
    expect(memory().hostBuffers - before).toBe(2);
    kept.a.dispose();
    kept.b.dispose();
    expect(() => scope(() => Promise.resolve() as never)).toThrow(/promise/);
  });

  it('is a Disposable', () => {
    const t = full([1]);
    t[Symbol.dispose]();
    expect(t).toBeInstanceOf(Tensor);
    expect(t.disposed).toBe(true);
  });
});
