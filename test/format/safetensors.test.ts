import { execFileSync, spawnSync } from 'node:child_process';
import {
  chmodSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, describe, expect, it } from 'vitest';
import { readSafetensors, writeSafetensors } from '../../lib/format/safetensors.js';
import { full, type Tensor, tensor } from '../../lib/index.js';

const dir = mkdtempSync(join(tmpdir(), 'topknot-safetensors-'));
afterAll(() => rmSync(dir, { recursive: true }));
const at = (name: string) => join(dir, name);

/** A file of just these bytes. */
function raw(bytes: string | Buffer): string {
  writeFileSync(at('h'), bytes);
  return at('h');
}

/** A file with this header text and data. */
function file(header: string | Buffer, data: Uint8Array = new Uint8Array(), claimed?: bigint): string {
  const bytes = Buffer.isBuffer(header) ? header : Buffer.from(header);
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(claimed ?? BigInt(bytes.length));
  const path = at('hostile.safetensors');
  writeFileSync(path, Buffer.concat([length, bytes, data]));
  return path;
}
const entry = (dtype: string, shape: unknown, offsets: unknown) => ({ dtype, shape, data_offsets: offsets });

describe('round trip', () => {
  it('keeps every dtype, shape and metadata', async () => {
    const tensors = new Map<string, Tensor>([
      [
        'a/f32',
        tensor([
          [1, 2.5],
          [-3, Number.POSITIVE_INFINITY],
        ]),
      ],
      ['f64', tensor([1 / 3, Number.NaN], { dtype: 'float64' })],
      ['f16', tensor([1, 65504, 2 ** -24], { dtype: 'float16' })],
      ['bf16', tensor([1, 3e38], { dtype: 'bfloat16' })],
      ['i8', tensor([-128, 127, 5], { dtype: 'int8' })],
      ['u8', tensor([0, 255], { dtype: 'uint8' })],
      ['i32', tensor([[-(2 ** 31)], [2 ** 31 - 1]], { dtype: 'int32' })],
      ['i64', tensor([2n ** 63n - 1n, -(2n ** 63n)], { dtype: 'int64' })],
      ['bool', tensor([true, false, true], { dtype: 'bool' })],
      ['empty', full([0, 4])],
    ]);
    const path = at('all.safetensors');
    await writeSafetensors(path, tensors, { metadata: { model: 'ü "quoted"' } });
    const back = await readSafetensors(path);
    expect(back.metadata.get('model')).toBe('ü "quoted"');
    expect([...back.tensors.keys()].sort()).toEqual([...tensors.keys()].sort());
    for (const [name, t] of tensors) {
      const b = back.tensors.get(name)!;
      expect([b.dtype, b.shape]).toEqual([t.dtype, t.shape]);
      expect(await b.data()).toEqual(await t.data());
    }
    expect(readdirSync(dir).filter((f) => f.endsWith('.tmp'))).toEqual([]);
  });

  it('is a file as the format says: length, JSON, aligned contiguous data', async () => {
    const path = at('layout.safetensors');
    await writeSafetensors(path, [
      ['b', tensor([1, 2], { dtype: 'int8' })],
      ['a', tensor([[1, 2, 3]])],
    ]);
    const bytes = readFileSync(path);
    const length = Number(bytes.readBigUInt64LE(0));
    expect((8 + length) % 8).toBe(0);
    const header = JSON.parse(bytes.subarray(8, 8 + length).toString());
    expect(header).toEqual({ a: entry('F32', [1, 3], [0, 12]), b: entry('I8', [2], [12, 14]) });
    expect(bytes.length).toBe(8 + length + 14);
    expect(bytes.readFloatLE(8 + length + 8)).toBe(3);
  });

  // Python's own package where it is installed, else the same reading spelt out with its standard library.
  it.skipIf(spawnSync('python3', ['--version']).status !== 0)('is read by Python', async () => {
    const path = at('python.safetensors');
    await writeSafetensors(
      path,
      [
        [
          'factors',
          tensor([
            [1, 2.5],
            [-3, 4],
          ]),
        ],
        ['ids', tensor([2n ** 60n], { dtype: 'int64' })],
      ],
      { metadata: { model: 'als' } },
    );
    const script = `
import json, struct, sys
def by_hand(path):
    raw = open(path, 'rb').read()
    n = struct.unpack('<Q', raw[:8])[0]
    head = json.loads(raw[8:8 + n])
    codes = {'F32': 'f', 'I64': 'q'}
    return {k: list(struct.unpack('<%d%s' % ((v['data_offsets'][1] - v['data_offsets'][0]) // struct.calcsize('<' + codes[v['dtype']]), codes[v['dtype']]),
            raw[8 + n + v['data_offsets'][0]:8 + n + v['data_offsets'][1]])) for k, v in head.items() if k != '__metadata__'}
try:
    from safetensors.numpy import load_file
    got = {k: v.ravel().tolist() for k, v in load_file(sys.argv[1]).items()}
except ImportError:
    got = by_hand(sys.argv[1])
print(json.dumps(got, sort_keys=True))`;
    const run = spawnSync('python3', ['-c', script, path], { encoding: 'utf8' });
    expect(run.stdout.trim()).toBe(`{"factors": [1.0, 2.5, -3.0, 4.0], "ids": [${2n ** 60n}]}`);
  });

  it('reads only the tensors asked for', async () => {
    const path = at('some.safetensors');
    await writeSafetensors(path, [
      ['x', tensor([1])],
      ['y', tensor([2])],
    ]);
    const { tensors } = await readSafetensors(path, { names: ['y'] });
    expect([...tensors.keys()]).toEqual(['y']);
    await expect(readSafetensors(path, { names: ['z'] })).rejects.toMatchObject({
      code: 'ERR_FORMAT',
      message: expect.stringContaining("'z'"),
    });
  });

  it('reads any tensors back (property)', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(fc.float32Array({ maxLength: 40 }), { maxLength: 5 }), async (arrays) => {
        const path = at('property.safetensors');
        await writeSafetensors(
          path,
          arrays.map((a, i) => [`t${i}`, tensor(a)] as const),
        );
        const back = await readSafetensors(path);
        for (const [i, a] of arrays.entries()) expect(await back.tensors.get(`t${i}`)!.data()).toEqual(a);
      }),
      { numRuns: 30 },
    );
  });
});

describe('hostile files', () => {
  const good = Buffer.from(Float32Array.of(1, 2).buffer);
  const cases: [string, () => string][] = [
    ['empty file', () => raw('')],
    ['nine bytes', () => raw('nine byte')],
    ['header larger than the file', () => file('{}', good, 1000n)],
    ['header of absurd size', () => file('{}', good, 2n ** 63n)],
    ['header of 2^64-1', () => file('{}', good, 2n ** 64n - 1n)],
    ['not JSON', () => file('{"a":')],
    ['not UTF-8', () => file(Buffer.from([0x7b, 0x22, 0xff, 0x22, 0x7d]))],
    ['a JSON array', () => file('[1]')],
    ['null', () => file('null')],
    ['unknown dtype', () => file(JSON.stringify({ a: entry('Q7', [2], [0, 8]) }), good)],
    ['negative dimension', () => file(JSON.stringify({ a: entry('F32', [-2], [0, 8]) }), good)],
    ['fractional dimension', () => file(JSON.stringify({ a: entry('F32', [1.5], [0, 8]) }), good)],
    ['nine dimensions', () => file(JSON.stringify({ a: entry('F32', [2, 1, 1, 1, 1, 1, 1, 1, 1], [0, 8]) }), good)],
    ['shape overflow', () => file(JSON.stringify({ a: entry('F32', [2 ** 40, 2 ** 40], [0, 8]) }), good)],
    ['shape and bytes differ', () => file(JSON.stringify({ a: entry('F32', [3], [0, 8]) }), good)],
    ['offsets reversed', () => file(JSON.stringify({ a: entry('F32', [2], [8, 0]) }), good)],
    ['offsets outside', () => file(JSON.stringify({ a: entry('F32', [2], [8, 16]) }), good)],
    ['overlap', () => file(JSON.stringify({ a: entry('F32', [2], [0, 8]), b: entry('F32', [1], [4, 8]) }), good)],
    ['gap', () => file(JSON.stringify({ a: entry('F32', [1], [4, 8]) }), good)],
    ['trailing bytes', () => file(JSON.stringify({ a: entry('F32', [1], [0, 4]) }), good)],
    ['cut short', () => file(JSON.stringify({ a: entry('F32', [2], [0, 8]) }), good.subarray(0, 5))],
    ['no offsets', () => file(JSON.stringify({ a: { dtype: 'F32', shape: [2] } }), good)],
    ['entry null', () => file(JSON.stringify({ a: null }), good)],
    ['metadata not a string', () => file(JSON.stringify({ __metadata__: { a: 1 } }))],
    ['bool of 7', () => file(JSON.stringify({ a: entry('BOOL', [1], [0, 1]) }), Uint8Array.of(7))],
  ];
  it.each(cases)('%s is refused as ERR_FORMAT', async (_, make) => {
    await expect(readSafetensors(make())).rejects.toMatchObject({
      name: 'TopknotError',
      code: 'ERR_FORMAT',
      message: expect.stringContaining('path: '),
    });
  });

  it('names like __proto__ are plain names', async () => {
    const { tensors } = await readSafetensors(
      file('{"__proto__":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}', good),
    );
    expect([...tensors.keys()]).toEqual(['__proto__']);
  });

  it('never crashes on random damage (property)', async () => {
    const path = at('damage.safetensors');
    await writeSafetensors(path, [
      ['x', tensor([1, 2, 3])],
      ['y', tensor([4], { dtype: 'int64' })],
    ]);
    const whole = readFileSync(path);
    await fc.assert(
      fc.asyncProperty(fc.nat(whole.length - 1), fc.nat(255), fc.boolean(), async (where, byte, cut) => {
        const damaged = Buffer.from(whole);
        damaged[where] = byte;
        writeFileSync(path, cut ? damaged.subarray(0, where) : damaged);
        try {
          await readSafetensors(path);
        } catch (e) {
          expect(e).toMatchObject({ name: 'TopknotError', code: 'ERR_FORMAT' });
        }
      }),
      { numRuns: 150 },
    );
  });
});

describe('the operating system says no', () => {
  it('missing file, folder and FIFO are ERR_IO', async () => {
    await expect(readSafetensors(at('nowhere'))).rejects.toMatchObject({ code: 'ERR_IO' });
    await expect(readSafetensors(dir)).rejects.toMatchObject({ code: 'ERR_IO' });
    execFileSync('mkfifo', [at('fifo')]);
    await expect(readSafetensors(at('fifo'))).rejects.toMatchObject({ code: 'ERR_IO' });
    await expect(writeSafetensors(at('no/such/folder'), [])).rejects.toMatchObject({ code: 'ERR_IO' });
  });

  it('replaces the file that a link leads to, keeps its permissions, and refuses what is no file', async () => {
    const path = at('real.safetensors');
    await writeSafetensors(path, []);
    chmodSync(path, 0o640);
    symlinkSync(path, at('link.safetensors'));
    await writeSafetensors(at('link.safetensors'), [['x', tensor([1, 2])]]);
    expect(lstatSync(at('link.safetensors')).isSymbolicLink()).toBe(true);
    expect(statSync(path).mode & 0o777).toBe(0o640);
    expect((await readSafetensors(path)).tensors.get('x')?.shape).toEqual([2]);

    mkdirSync(at('folder'));
    execFileSync('mkfifo', [at('pipe')]);
    for (const name of ['folder', 'pipe'])
      await expect(writeSafetensors(at(name), [])).rejects.toMatchObject({ code: 'ERR_IO' });
    for (const call of [() => writeSafetensors(`${path}\0.bak`, []), () => readSafetensors(`${path}\0.bak`)])
      await expect(call()).rejects.toMatchObject({ code: 'ERR_ARGUMENT' });
  });

  it('saves beside what a killed process of the same number left behind', async () => {
    const path = at('again.safetensors');
    const left = Array.from({ length: 200 }, (_, serial) => `${path}.${process.pid}.${serial}.tmp`);
    for (const file of left) writeFileSync(file, 'half a model');
    await writeSafetensors(path, [['x', tensor([1])]]);
    for (const file of left) rmSync(file);
    expect((await readSafetensors(path)).tensors.size).toBe(1);
  });

  it('a full disk leaves the earlier file whole and no rubbish behind', async () => {
    // The file size limit stops a write in its middle just as a full disk does (EFBIG instead of ENOSPC).
    const path = at('full.safetensors');
    await writeSafetensors(path, [['x', tensor([1, 2, 3])]]);
    const before = readFileSync(path);
    const script = `
      process.on('SIGXFSZ', () => {});
      const { writeSafetensors } = await import('./dist/format/safetensors.js');
      const { full } = await import('./dist/index.js');
      try { await writeSafetensors(${JSON.stringify(path)}, [['x', full([4_000_000], { value: 1 })]]); }
      catch (e) { console.log(e.code, e.message); }`;
    const run = spawnSync('bash', ['-c', `ulimit -f 1024; exec node --input-type=module -e "$SCRIPT"`], {
      env: { ...process.env, SCRIPT: script },
      encoding: 'utf8',
    });
    expect(run.stdout).toMatch(/^ERR_IO path: could not write/);
    expect(readFileSync(path)).toEqual(before);
    expect(readdirSync(dir).filter((f) => f.includes('.tmp'))).toEqual([]);
  });

  it('a really full disk says what to do', async ({ skip }) => {
    const mount = at('tiny');
    const made = spawnSync('bash', ['-c', `mkdir -p ${mount} && mount -t tmpfs -o size=64k tmpfs ${mount}`]);
    if (made.status !== 0) skip('mounting a small file system is not allowed here');
    try {
      const path = join(mount, 'm.safetensors');
      await writeSafetensors(path, [['x', tensor([1])]]);
      const before = readFileSync(path);
      await expect(writeSafetensors(path, [['x', full([1_000_000], { value: 1 })]])).rejects.toMatchObject({
        code: 'ERR_IO',
        message: expect.stringContaining('free some space'),
      });
      expect(readFileSync(path)).toEqual(before);
      expect(readdirSync(mount)).toEqual(['m.safetensors']);
    } finally {
      spawnSync('umount', [mount]);
    }
  });

  it('an abort in mid-write keeps the earlier file', async () => {
    const path = at('abort.safetensors');
    await writeSafetensors(path, [['x', tensor([7])]]);
    const big = full([20_000_000], { value: 1 });
    const stop = new AbortController();
    const saving = writeSafetensors(path, [['x', big]], {
      signal: stop.signal,
      onProgress: () => stop.abort(new Error('enough')),
    });
    await expect(saving).rejects.toThrow('enough');
    expect(await (await readSafetensors(path)).tensors.get('x')!.data()).toEqual(Float32Array.of(7));
  });
});
