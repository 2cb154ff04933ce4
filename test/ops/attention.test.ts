import { describe, expect, it } from 'vitest';
import {
  type AttentionOptions,
  attention,
  attentionBackward,
  full,
  setThreads,
  type Tensor,
  tensor,
  threads,
} from '../../lib/index.js';
import { numbers } from '../models/suite.js';
import {
  attentionGradients,
  type Heads,
  type ReferenceOptions,
  attention as reference,
} from '../reference/attention.js';

const next = numbers(11);
const random = (...shape: number[]): never =>
  (shape.length === 0
    ? Math.fround(2 * (next() + next() + next()) - 3)
    : Array.from({ length: shape[0]! }, () => random(...shape.slice(1)))) as never;
const drawHeads = (
  batch: number,
  heads: number,
  kvHeads: number,
  queries: number,
  keys: number,
  dims: number,
): Heads => ({
  q: random(batch, heads, queries, dims),
  k: random(batch, kvHeads, keys, dims),
  v: random(batch, kvHeads, keys, dims),
});
const tensors = ({ q, k, v }: Heads) =>
  [q, k, v].map((x) => tensor(x)) as [Tensor<'float32'>, Tensor<'float32'>, Tensor<'float32'>];
const flat = (x: number[][][][]) => x.flat(3);

async function expectNear(actual: Tensor<'float32'>, expected: number[], tolerance = 3e-6) {
  const data = await actual.data();
  expect(data.length).toBe(expected.length);
  const worst = expected.reduce((most, e, i) => Math.max(most, Math.abs(data[i]! - e) / (1 + Math.abs(e))), 0);
  expect(worst).toBeLessThan(tolerance);
}

describe('attention', () => {
  const bias = random(2, 1, 9, 23) as number[][][][];
  const hidden = (b: number, j: number) => (j * 7 + b) % 5 === 0;
  const keyMask = tensor(
    Array.from({ length: 2 }, (_, b) => Array.from({ length: 23 }, (_, j) => !hidden(b, j))),
    { dtype: 'bool' },
  );
  const single: [string, AttentionOptions, ReferenceOptions][] = [
    ['causal', { causal: true }, { causal: true }],
    ['a window', { window: 4 }, { window: [4, 4] }],
    ['a window to one side', { window: [Infinity, 2] }, { window: [Infinity, 2] }],
    ['a scale', { scale: 0.7 }, { scale: 0.7 }],
    ['a key mask', { keyMask }, { visible: (b, j) => !hidden(b, j) }],
    ['a bias', { bias: tensor(bias) }, { bias: (b, _, i, j) => bias[b]![0]![i]![j]! }],
  ];
  const all = single.reduce<[AttentionOptions, ReferenceOptions]>(
    ([o, r], [, p, s]) => [
      { ...o, ...p },
      { ...r, ...s },
    ],
    [{}, {}],
  );
  const heads = drawHeads(2, 6, 3, 9, 23, 13);

  it.each([['no option', {}, {}], ...single, ['all options', ...all]] as typeof single)(
    'agrees with its definition: %s',
    async (_, options, same) => {
      const { out, logSumExp } = attention(...tensors(heads), options);
      expect([out.shape, logSumExp.shape, out.dtype]).toEqual([[2, 6, 9, 13], [2, 6, 9], 'float32']);
      await expectNear(out, flat(reference(heads, same)));
    },
  );

  it.each([1, 2, 5, 8, 31, 64, 96, 255, 256])('takes heads of %i dims', async (dims) => {
    const h = drawHeads(1, 2, 1, 21, 34, dims);
    await expectNear(attention(...tensors(h)).out, flat(reference(h)));
  });

  it('takes packed sequences of any lengths, none included', async () => {
    const lengths: [number, number][] = [
      [5, 5],
      [0, 3],
      [17, 2],
      [1, 40],
      [4, 0],
    ];
    const parts = lengths.map(([n, m]) => drawHeads(1, 4, 2, n, m, 6));
    // [1][head][position] of each part -> [total][head], side by side
    const pack = (of: keyof Heads) =>
      parts.flatMap((part) => part[of][0]![0]!.map((_, i) => part[of][0]!.map((head) => head[i]!)));
    const ends = (side: 0 | 1) => {
      let at = 0;
      return [0, ...lengths.map((l) => (at += l[side]))];
    };
    const [q, k, v] = (['q', 'k', 'v'] as const).map((name) => tensor(pack(name))) as [
      Tensor<'float32'>,
      Tensor<'float32'>,
      Tensor<'float32'>,
    ];
    const options = {
      causal: true,
      queryOffsets: Int32Array.from(ends(0)),
      keyOffsets: BigInt64Array.from(ends(1), BigInt),
    };
    const expected = parts.flatMap((part) => {
      const of = reference(part, { causal: true })[0]!;
      return of[0]!.flatMap((_, i) => of.flatMap((head) => head[i]!));
    });
    const { out, logSumExp } = attention(q, k, v, options);
    expect(logSumExp.shape).toEqual([4, 27]);
    await expectNear(out, expected);
    const wide = tensor(Array.from(ends(0)), { dtype: 'float64' }).cast('int32'); // offsets still being computed
    await expectNear(attention(q, k, v, { ...options, queryOffsets: wide }).out, expected);
  });

  it('takes a key mask and a bias with packed sequences', async () => {
    const lengths: [number, number][] = [
      [4, 4],
      [0, 2],
      [3, 6],
    ];
    const parts = lengths.map(([n, m]) => drawHeads(1, 2, 1, n, m, 5));
    const pack = (of: keyof Heads) =>
      tensor(parts.flatMap((part) => part[of][0]![0]!.map((_, i) => part[of][0]!.map((head) => head[i]!))));
    const [q, k, v] = (['q', 'k', 'v'] as const).map(pack) as [Tensor<'float32'>, Tensor<'float32'>, Tensor<'float32'>];
    const shared = random(1, 2, 5, 6) as number[][][][]; // one row longer than the longest sequence
    const seen = [1, 1, 0, 1, 1, 1, 0, 1, 1, 1, 1, 0];
    const starts = [0, 4, 6];
    const options = {
      queryOffsets: Int32Array.of(0, 4, 4, 7),
      keyOffsets: Int32Array.of(0, 4, 6, 12),
      keyMask: tensor(seen, { dtype: 'uint8' }),
      bias: tensor(shared),
    };
    const same = (s: number): ReferenceOptions => ({
      visible: (_, j) => seen[starts[s]! + j] === 1,
      bias: (_, h, i, j) => shared[0]![h]![i]![j]!,
    });
    const saved = attention(q, k, v, options);
    const rows = (of: number[][][]) => (of[0] ?? []).flatMap((_, i) => of.flatMap((head) => head[i]!));
    await expectNear(
      saved.out,
      parts.flatMap((part, s) => rows(reference(part, same(s))[0]!)),
    );

    const weight = parts.map((part) => random(1, 2, part.q[0]![0]!.length, 5) as number[][][][]);
    const packedWeight = tensor(weight.flatMap((w) => w[0]![0]!.map((_, i) => w[0]!.map((head) => head[i]!))));
    const gradients = attentionBackward(packedWeight, q, k, v, saved, options);
    const expected = parts.map((part, s) => attentionGradients(part, weight[s]!, same(s)));
    for (const name of ['q', 'k', 'v'] as const)
      await expectNear(
        gradients[name],
        expected.flatMap((e) => rows(e[name][0]!)),
        1e-5,
      );
    const ofBias = shared[0]!.map((head, h) =>
      head.map((row, i) => row.map((_, j) => expected.reduce((sum, e) => sum + (e.bias[0]![h]![i]?.[j] ?? 0), 0))),
    );
    await expectNear(gradients.bias!, ofBias.flat(2), 1e-5);
    const wide = tensor([0, 4, 4, 7], { dtype: 'float64' }).cast('int32'); // lengths that are not known at the call
    const short = attention(q, k, v, { ...options, queryOffsets: wide, bias: full([1, 2, 3, 6]) });
    await expect(short.out.data()).rejects.toMatchObject({
      code: 'ERR_SHAPE',
      message: expect.stringContaining('bias:'),
    });
  });

  it('stores bfloat16 and sums in float32', async () => {
    const narrow = tensors(heads).map((t) => t.cast('bfloat16')) as Tensor<'bfloat16'>[];
    const [q, k, v] = narrow as [Tensor<'bfloat16'>, Tensor<'bfloat16'>, Tensor<'bfloat16'>];
    const [wideQ, wideK, wideV] = [q.cast('float32'), k.cast('float32'), v.cast('float32')];
    const options = { causal: true, keyMask, bias: tensor(bias) };
    const half = attention(q, k, v, options);
    const single = attention(wideQ, wideK, wideV, options);
    expect([half.out.dtype, half.logSumExp.dtype]).toEqual(['bfloat16', 'float32']);
    expect(await half.out.data()).toEqual(await single.out.cast('bfloat16').data());
    const weight = tensor(random(2, 6, 9, 13)).cast('bfloat16');
    const gradients = attentionBackward(weight, q, k, v, half, options);
    const out = half.out.cast('float32');
    const wide = attentionBackward(weight.cast('float32'), wideQ, wideK, wideV, { ...half, out }, options);
    for (const name of ['q', 'k', 'v'] as const)
      expect(await gradients[name].data()).toEqual(await wide[name].cast('bfloat16').data());
    expect(await gradients.bias!.data()).toEqual(await wide.bias!.data());
  });

  it('gives zeros to a query that sees no key, and takes empty inputs', async () => {
    const h = drawHeads(1, 1, 1, 5, 3, 4);
    const { out, logSumExp } = attention(...tensors(h), { causal: true });
    expect([...(await out.data())].slice(0, 8)).toEqual(Array(8).fill(0));
    expect([...(await logSumExp.data())].slice(0, 3).map(Number.isFinite)).toEqual([false, false, true]);
    const none = attention(full([1, 1, 5, 4]), full([1, 1, 0, 4]), full([1, 1, 0, 4]));
    expect([...(await none.out.data())]).toEqual(Array(20).fill(0));
    expect((await attention(full([3, 1, 0, 4]), full([3, 1, 2, 4]), full([3, 1, 2, 4])).out.data()).length).toBe(0);
  });

  it('drops the same weights for the same seed, at any number of threads', async () => {
    const args = tensors(drawHeads(2, 4, 4, 70, 70, 16));
    const before = threads();
    const one = await attention(...args, { dropout: 0.2, seed: 3 }).out.data();
    setThreads(1);
    expect(await attention(...args, { dropout: 0.2, seed: 3 }).out.data()).toEqual(one);
    setThreads(before);
    expect(await attention(...args, { dropout: 0.2, seed: 4 }).out.data()).not.toEqual(one);
    expect(await attention(...args, { seed: 3 }).out.data()).not.toEqual(one);
  });

  it('names what is wrong', async () => {
    const [q, k] = [full([2, 4, 6, 8]), full([2, 2, 5, 8])];
    const bad: [string, string, () => unknown][] = [
      ['ERR_SHAPE', 'q:', () => attention(full([4, 6, 8]), k, k)],
      [
        'ERR_SHAPE',
        'k: expected a number of heads that divides the 4',
        () => attention(q, full([2, 3, 5, 8]), full([2, 3, 5, 8])),
      ],
      ['ERR_SHAPE', 'k: expected 8 dimensions', () => attention(q, full([2, 2, 5, 7]), full([2, 2, 5, 7]))],
      ['ERR_SHAPE', 'v:', () => attention(q, k, full([2, 2, 6, 8]))],
      ['ERR_DTYPE', 'v:', () => attention(q, k, full([2, 2, 5, 8], { dtype: 'float64' }) as never)],
      ['ERR_DTYPE', 'k: expected bfloat16, as q is', () => attention(q.cast('bfloat16'), k as never, k as never)],
      ['ERR_DTYPE', 'q: expected float32 or bfloat16', () => attention(q.cast('float16') as never, k, k)],
      ['ERR_SHAPE', 'q: expected 1 to 256', () => attention(full([1, 1, 1, 300]), k, k)],
      ['ERR_SHAPE', 'bias:', () => attention(q, k, k, { bias: full([2, 3, 6, 5]) })],
      ['ERR_SHAPE', 'keyMask:', () => attention(q, k, k, { keyMask: full([2, 6], { dtype: 'bool' }) })],
      ['ERR_DTYPE', 'keyMask:', () => attention(q, k, k, { keyMask: full([2, 5]) as never })],
      ['ERR_ARGUMENT', 'keyMask:', () => attention(q, k, k, { keyMask: [true] as never })],
      ['ERR_ARGUMENT', 'window:', () => attention(q, k, k, { window: [1] as never })],
      ['ERR_RANGE', 'window:', () => attention(q, k, k, { window: -1 })],
      ['ERR_RANGE', 'dropout:', () => attention(q, k, k, { dropout: 1 })],
      ['ERR_ARGUMENT', 'scale:', () => attention(q, k, k, { scale: Number.NaN })],
      ['ERR_ARGUMENT', 'causal:', () => attention(q, k, k, { causal: 1 as never })],
      ['ERR_ARGUMENT', 'options.mask:', () => attention(q, k, k, { mask: 1 } as never)],
      ['ERR_ARGUMENT', 'keyOffsets:', () => attention(q, k, k, { keyOffsets: Int32Array.of(0, 5) })],
      [
        'ERR_RANGE',
        'queryOffsets:',
        () => attention(full([6, 2, 3]), full([6, 2, 3]), full([6, 2, 3]), { queryOffsets: Int32Array.of(0, 4, 3, 6) }),
      ],
      [
        'ERR_RANGE',
        'queryOffsets: expected to end at 6',
        () => attention(full([6, 2, 3]), full([6, 2, 3]), full([6, 2, 3]), { queryOffsets: Int32Array.of(0, 4, 9) }),
      ],
      [
        'ERR_SHAPE',
        'bias: expected at least 4 queries and 4 keys',
        () =>
          attention(full([6, 2, 3]), full([6, 2, 3]), full([6, 2, 3]), {
            queryOffsets: Int32Array.of(0, 4, 6),
            bias: full([1, 1, 6, 3]),
          }),
      ],
      [
        'ERR_RANGE',
        'keyOffsets:',
        () => attention(full([6, 2, 3]), full([7, 2, 3]), full([7, 2, 3]), { queryOffsets: Int32Array.of(0, 6) }),
      ],
    ];
    for (const [code, message, call] of bad)
      expect(call, message).toThrow(expect.objectContaining({ code, message: expect.stringContaining(message) }));
    const nan = attention(q, k, full([2, 2, 5, 8], { value: Number.NaN }));
    await expect(nan.out.data()).rejects.toMatchObject({ code: 'ERR_VALUE', message: expect.stringContaining('v:') });
    await expect(nan.logSumExp.data()).rejects.toMatchObject({ code: 'ERR_VALUE' });
  });

  it.each([['no option', {}, {}], ...single, ['all options', ...all]] as typeof single)(
    'has the gradients of its definition: %s',
    async (_, options, same) => {
      const [q, k, v] = tensors(heads);
      const weight = random(2, 6, 9, 13) as number[][][][];
      const saved = attention(q, k, v, options);
      const actual = attentionBackward(tensor(weight), q, k, v, saved, options);
      const expected = attentionGradients(heads, weight, same);
      for (const name of ['q', 'k', 'v'] as const) {
        expect(actual[name].shape).toEqual({ q, k, v }[name].shape);
        await expectNear(actual[name], flat(expected[name]), 1e-5);
      }
      // The bias has one head, which all six share.
      const ofBias = expected.bias.map((ofSequence) => [
        ofSequence[0]!.map((row, i) => row.map((_, j) => ofSequence.reduce((sum, h) => sum + h[i]![j]!, 0))),
      ]);
      if (options.bias) await expectNear(actual.bias!, flat(ofBias), 1e-5);
      else expect(actual.bias).toBeUndefined();
    },
  );

  it('has gradients that differences of the output confirm, dropout included', async () => {
    const h = drawHeads(1, 2, 1, 6, 8, 5);
    const weight = random(1, 2, 6, 5) as number[][][][];
    const options = { dropout: 0.3, seed: 9 };
    const loss = async () => {
      const out = await attention(...tensors(h), options).out.data();
      return flat(weight).reduce((sum, w, i) => sum + w * out[i]!, 0);
    };
    const saved = attention(...tensors(h), options);
    const gradients = attentionBackward(tensor(weight), ...tensors(h), saved, options);
    for (const name of ['q', 'k', 'v'] as const) {
      const gradient = await gradients[name].data();
      const row = h[name][0]![0]![3]!;
      const [before, step] = [row[2]!, 2 ** -6];
      row[2] = before + step;
      const above = await loss();
      row[2] = before - step;
      const below = await loss();
      row[2] = before;
      expect(gradient[3 * 5 + 2]).toBeCloseTo((above - below) / (2 * step), 2);
    }
  });

  it('names what is wrong with what was saved', async () => {
    const [q, k] = [full([1, 2, 6, 8]), full([1, 2, 5, 8])];
    const saved = attention(q, k, k);
    const thrown = (message: string) => expect.objectContaining({ message: expect.stringContaining(message) });
    expect(() => attentionBackward(full([1, 2, 5, 8]), q, k, k, saved)).toThrow(thrown('outGradient: expected shape'));
    expect(() => attentionBackward(q, q, k, k, { ...saved, out: k })).toThrow(thrown('out: expected shape'));
    expect(() => attentionBackward(q, q, k, k, { ...saved, logSumExp: q })).toThrow(
      thrown('logSumExp: expected shape'),
    );
    const nan = attentionBackward(full([1, 2, 6, 8], { value: Number.NaN }), q, k, k, saved);
    await expect(nan.k.data()).rejects.toMatchObject({
      code: 'ERR_VALUE',
      message: expect.stringContaining('outGradient:'),
    });
  });
});
