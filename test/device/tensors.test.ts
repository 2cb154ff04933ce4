// Tensors on the emulated GPU: names of devices, the ways there and back, memory.
import { execFileSync } from 'node:child_process';
import { beforeEach, describe, expect, it } from 'vitest';
import { cudaProblem, type DType, device, devices, full, memory, scope, tensor, trim } from '../../lib/index.js';
import { settledMemory } from '../reference/memory.js';

const refuses = (make: () => unknown, code: string, ...words: string[]) => {
  try {
    make();
  } catch (e) {
    expect(e).toMatchObject({ name: 'TopknotError', code });
    for (const word of words) expect((e as Error).message).toContain(word);
    return;
  }
  expect.unreachable('expected an error');
};

describe('device()', () => {
  it('gives the full name of what is there', () => {
    expect(['cpu', 'cuda', 'cuda:0', 'cuda:1', 'auto'].map(device)).toEqual([
      'cpu',
      'cuda:0',
      'cuda:0',
      'cuda:1',
      'cuda:0',
    ]);
    expect(devices()[1]).toEqual({
      device: 'cuda:0',
      name: 'Emulated GPU',
      isa: 'sm_90',
      totalBytes: 2 ** 30,
      driver: '13.0',
    });
    expect(cudaProblem()).toBe('');
  });

  it('refuses what is not', () => {
    refuses(() => device('cuda:2'), 'ERR_DEVICE', "'cuda:2'", '0 to 1', '2 CUDA devices');
    for (const bad of ['gpu', 'cuda:', 'cuda:-1', 'cuda:01', 'cuda:x', 'CUDA', '', 'cuda:99999'])
      refuses(() => device(bad), 'ERR_ARGUMENT', 'device', `'${bad}'`);
    refuses(() => device(0 as never), 'ERR_ARGUMENT', 'device', '0');
  });
});

/** In a process of its own, since the plugin is opened once; with the role that the emulated plugin is to play. */
function alone(role: string, script: string, env: Record<string, string> = {}): string {
  return execFileSync(
    process.execPath,
    ['--input-type=module', '-e', `import * as t from './dist/index.js';${script}`],
    { encoding: 'utf8', env: { ...process.env, TOPKNOT_SIMT_PLUGIN: role, ...env } },
  ).trim();
}
const tried =
  "const code = (f) => { try { return f(); } catch (e) { return e.code + ': ' + e.message; } };" +
  "console.log([t.device('auto'), code(() => t.device('cuda')), code(() => t.tensor([1], { device: 'cuda:0' }))].join('\\n'))";

describe('where no GPU can be used', () => {
  it.each([
    ['no-driver', 'no NVIDIA driver was found'],
    ['old-driver', 'older than the 13.0'],
    ['no-gpu', 'shows no GPU'],
    ['old-gpu', 'compute capability 7.0'],
    ['old-abi', 'belongs to another build of topknot'],
  ])('%s: auto is the CPU, and cuda says why', (role, why) => {
    const [auto, named, made] = alone(role, tried).split('\n');
    expect(auto).toBe('cpu');
    for (const answer of [named, made]) {
      expect(answer).toMatch(/^ERR_DEVICE: device 'cuda:0': /);
      expect(answer).toContain(why);
      expect(answer).toMatch(/'cpu'/);
    }
  });

  it('no plugin', () => {
    const [auto, named] = alone('', tried, { TOPKNOT_CUDA_PLUGIN: '/nowhere/plugin.so' }).split('\n');
    expect(auto).toBe('cpu');
    expect(named).toContain('looked for /nowhere/plugin.so');
  });

  it('doctor tells of the GPUs that there are', () => {
    const text = execFileSync(process.execPath, ['dist/cli.js', 'doctor'], { encoding: 'utf8' });
    expect(text).toMatch(/cuda:0 +Emulated GPU, sm_90, 1\.0 GiB, driver for CUDA 13\.0/);
  });
});

describe('tensors', () => {
  it.each<DType>(['float32', 'float64', 'float16', 'bfloat16', 'int8', 'uint8', 'int32', 'int64', 'bool'])(
    '%s goes there and back as it is',
    async (dtype) => {
      const t = tensor([0, 1, 1, 0, 1, 1], { dtype, shape: [2, 3] });
      const there = t.to('cuda:1');
      expect([there.device, there.dtype, there.shape]).toEqual(['cuda:1', dtype, [2, 3]]);
      expect(await there.data()).toEqual(t.dataSync());
      expect(there.dataSync()).toEqual(t.dataSync());
      const back = there.to('cuda').to('cpu');
      expect(back.device).toBe('cpu');
      expect(await back.data()).toEqual(t.dataSync());
      const made = tensor([0, 1, 1, 0, 1, 1], { dtype, shape: [2, 3], device: 'cuda' });
      expect([made.device, made.dataSync()]).toEqual(['cuda:0', t.dataSync()]);
    },
  );

  it('are made there from what tensor() and full() take', async () => {
    expect((await tensor([[1], [2]], { device: 'cuda' }).data()).join()).toBe('1,2');
    expect(tensor(Int32Array.of(4), { device: 'auto' }).dataSync().join()).toBe('4');
    expect((await full([3], { value: 7, device: 'cuda:1' }).data()).join()).toBe('7,7,7');
    expect(full([0, 3], { device: 'cuda' }).dataSync().length).toBe(0);
    expect(full([], { value: 2, device: 'cuda' }).reshape([1, 1]).dataSync().join()).toBe('2');
    refuses(() => tensor([1], { device: 'tpu' }), 'ERR_ARGUMENT', 'device', "'tpu'");
    refuses(() => tensor([1]).to(undefined as never), 'ERR_ARGUMENT', 'device');
  });

  it.each(['float32', 'float64', 'bfloat16', 'int8', 'int64', 'bool'] as const)(
    'are filled there: %s',
    async (dtype) => {
      for (const count of [1, 65_537, 200_003]) {
        const before = memory().hostBytes;
        const made = full([count], { dtype, value: 1, device: 'cuda' });
        expect([made.device, memory().hostBytes]).toEqual(['cuda:0', before]);
        expect(await made.data()).toEqual(await full([count], { dtype, value: 1 }).data());
      }
      expect(Array.from(full([3], { dtype, device: 'cuda' }).dataSync(), Number)).toEqual([0, 0, 0]);
    },
  );

  it('share memory where they are there already', async () => {
    const before = (await settledMemory()).cudaBuffers;
    const a = full([100], { value: 1, device: 'cuda' });
    const b = a.to('cuda:0');
    expect(memory().cudaBuffers - before).toBe(1);
    a.dispose();
    expect(b.dataSync()[99]).toBe(1);
    b.dispose();
    expect(memory().cudaBuffers).toBe(before);
  });

  it('large ones arrive whole', async () => {
    const numbers = Float32Array.from({ length: 3_000_001 }, (_, i) => i);
    const t = tensor(numbers, { device: 'cuda' });
    expect(Buffer.from((await t.data()).buffer).equals(Buffer.from(numbers.buffer))).toBe(true);
    t.dispose();
  });

  it('a failed operation poisons what is moved', async () => {
    const poisoned = tensor([1, 1e9]).cast('int8').to('cuda');
    await expect(poisoned.data()).rejects.toMatchObject({ code: 'ERR_RANGE' });
    expect(() => poisoned.to('cpu').dataSync()).toThrow(/int8/);
  });

  it('reshape and cast there; numbers that do not fit poison the result as on the CPU', async () => {
    const t = tensor([1, 2, 300, 1e9], { device: 'cuda' });
    expect(t.reshape([2, 2]).device).toBe('cuda:0');
    expect(t.cast('int32').device).toBe('cuda:0');
    expect((await t.cast('int32').data()).join()).toBe('1,2,300,1000000000');
    const message = 'tensor: expected values that int8 can hold but received 300';
    for (const device of ['cuda', 'cpu']) {
      const poisoned = t.to(device).cast('int8');
      await expect(poisoned.data()).rejects.toMatchObject({ code: 'ERR_RANGE', message });
      await expect(poisoned.cast('float32').data()).rejects.toMatchObject({ code: 'ERR_RANGE', message });
    }
  });

  it('cast between all types as on the CPU', async () => {
    const dtypes = ['float32', 'float64', 'float16', 'bfloat16', 'int8', 'uint8', 'int32', 'int64', 'bool'] as const;
    for (const from of dtypes) {
      const floats = from.includes('float') ? [0.5, 1.5, 2.49, 99.999] : [];
      const t = tensor([0, 1, 2, 100, ...floats], { dtype: from });
      const there = t.to('cuda');
      for (const to of dtypes) {
        expect(there.cast(to).device).toBe('cuda:0');
        expect([from, to, await there.cast(to).data()]).toEqual([from, to, await t.cast(to).data()]);
      }
    }
  });

  it('outlive dispose while work is queued', async () => {
    const t = full([200_000], { value: 3 });
    const there = t.to('cuda');
    const reading = there.data();
    t.dispose();
    there.dispose();
    expect((await reading)[199_999]).toBe(3);
  });
});

describe('memory', () => {
  beforeEach(() => trim());

  it('counts tensors, and what the allocator has and keeps', async () => {
    const before = await settledMemory();
    const t = full([1000], { device: 'cuda' });
    await t.data();
    const during = memory();
    expect([during.cudaBytes - before.cudaBytes, during.cudaBuffers - before.cudaBuffers]).toEqual([4000, 1]);
    expect(during.cuda[0]).toMatchObject({ device: 'cuda:0' });
    expect(during.cuda[0]!.usedBytes - before.cuda[0]!.usedBytes).toBe(4000);
    t.dispose();
    expect(memory().cudaBytes).toBe(before.cudaBytes);
    expect(memory().cuda[0]!.keptBytes).toBeGreaterThanOrEqual(4000);
    trim();
    expect(memory().cuda[0]!.keptBytes).toBe(0);
  });

  it('is not asked of GPUs that nobody used', () => {
    const script =
      'const t0 = t.memory().cuda.length; t.tensor([1]); t.trim(); console.log(t0, t.memory().cuda.length)';
    expect(alone('', script)).toBe('0 0');
    const used =
      "t.tensor([1], { device: 'cuda:1' }); console.log(JSON.stringify(t.memory().cuda.map((m) => m.device)))";
    expect(alone('two-gpus', used)).toBe('["cuda:1"]');
  });

  it('says what was asked for and what is free when there is not enough, and goes on', () => {
    refuses(() => full([2 ** 28 + 1], { device: 'cuda' }), 'ERR_MEMORY', "'cuda:0'", String(2 ** 30 + 4), 'are free');
    expect(full([4], { value: 1, device: 'cuda' }).dataSync().join()).toBe('1,1,1,1');
  });

  it('scopes free what was made there', async () => {
    const before = (await settledMemory()).cudaBuffers;
    const kept = scope(() => {
      const a = full([10], { device: 'cuda' });
      return a.reshape([5, 2]);
    });
    kept.dataSync(); // what makes it has ended
    expect(memory().cudaBuffers - before).toBe(1);
    kept.dispose();
    expect(memory().cudaBuffers).toBe(before);
  });
});
