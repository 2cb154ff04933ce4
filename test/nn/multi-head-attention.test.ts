import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import {
  full,
  MultiHeadAttention,
  type MultiHeadAttentionOptions,
  readSafetensors,
  setThreads,
  type Tensor,
  tensor,
  threads,
  writeSafetensors,
} from '../../lib/index.js';
import { numbers } from '../models/suite.js';
import type { ReferenceOptions } from '../reference/attention.js';
import { type LayerWeights, multiHeadAttention } from '../reference/multi-head-attention.js';

const next = numbers(21);
const random = (...shape: number[]): never =>
  (shape.length === 0
    ? Math.fround(next() + next() - 1)
    : Array.from({ length: shape[0]! }, () => random(...shape.slice(1)))) as never;
const [embedDim, heads] = [6, 2];

interface Setting {
  keyDim: number;
  valueDim: number;
  bias: boolean;
  query: number[][][];
  key: number[][][] | undefined;
  value: number[][][] | undefined;
  options: MultiHeadAttentionOptions;
  same: ReferenceOptions;
}

const weightsFor = ({ keyDim, valueDim, bias }: Setting): LayerWeights => ({
  q: random(embedDim, embedDim),
  k: random(embedDim, keyDim),
  v: random(embedDim, valueDim),
  out: random(embedDim, embedDim),
  biases: bias ? random(4, embedDim) : Array.from({ length: 4 }, () => Array<number>(embedDim).fill(0)),
});

/** The parameters by PyTorch's names. */
function named({ q, k, v, out, biases }: LayerWeights, { keyDim, valueDim, bias }: Setting): Map<string, Tensor> {
  const all: [string, number[] | number[][]][] =
    keyDim === embedDim && valueDim === embedDim
      ? [['in_proj_weight', [...q, ...k, ...v]]]
      : [
          ['q_proj_weight', q],
          ['k_proj_weight', k],
          ['v_proj_weight', v],
        ];
  all.push(['out_proj.weight', out]);
  if (bias) all.push(['in_proj_bias', biases.slice(0, 3).flat()], ['out_proj.bias', biases[3]!]);
  return new Map(all.map(([name, values]) => [name, tensor(values)]));
}

const run = ({ query, key, value, same }: Setting, weights: LayerWeights) =>
  multiHeadAttention(query, key ?? query, value ?? key ?? query, weights, heads, same);

async function expectNear(actual: Tensor, expected: number[], tolerance: number) {
  const data = (await actual.data()) as Float32Array;
  expect(data.length).toBe(expected.length);
  const worst = expected.reduce((most, e, i) => Math.max(most, Math.abs(data[i]! - e) / (1 + Math.abs(e))), 0);
  expect(worst).toBeLessThan(tolerance);
}

const hidden = (b: number, j: number) => (j + b) % 3 === 2;
const mask = (batch: number, keys: number) =>
  tensor(
    Array.from({ length: batch }, (_, b) => Array.from({ length: keys }, (_, j) => !hidden(b, j))),
    { dtype: 'bool' },
  );
const pairBias = random(2, 1, 3, 5) as number[][][][];
const plain = { keyDim: embedDim, valueDim: embedDim, bias: true, options: {}, same: {} };
const settings: [string, Setting][] = [
  ['self-attention', { ...plain, query: random(2, 4, embedDim), key: undefined, value: undefined }],
  [
    'causal self-attention without biases, some keys hidden',
    {
      ...plain,
      bias: false,
      query: random(2, 4, embedDim),
      key: undefined,
      value: undefined,
      options: { causal: true, keyMask: mask(2, 4) },
      same: { causal: true, visible: (b, j) => !hidden(b, j) },
    },
  ],
  [
    'keys that serve as values',
    { ...plain, query: random(2, 3, embedDim), key: random(2, 5, embedDim), value: undefined },
  ],
  [
    'keys and values of other widths, and a bias of every pair',
    {
      ...plain,
      keyDim: 4,
      valueDim: 7,
      query: random(2, 3, embedDim),
      key: random(2, 5, 4),
      value: random(2, 5, 7),
      options: { bias: tensor(pairBias) },
      same: { bias: (b, _, i, j) => pairBias[b]![0]![i]![j]! },
    },
  ],
];

describe('MultiHeadAttention', () => {
  it.each(settings)('agrees with its formula: %s', async (_, setting) => {
    const weights = weightsFor(setting);
    const layer = new MultiHeadAttention(named(weights, setting), heads);
    expect([layer.embedDim, layer.keyDim, layer.valueDim]).toEqual([embedDim, setting.keyDim, setting.valueDim]);
    const [query, key, value] = [setting.query, setting.key, setting.value].map((x) => x && tensor(x));
    const { out } = layer.forward(query!, key, value, setting.options);
    expect(out.shape).toEqual([2, setting.query[0]!.length, embedDim]);
    await expectNear(out, run(setting, weights).flat(2), 3e-6);
  });

  it.each(settings)('has gradients that differences of its formula confirm: %s', async (_, setting) => {
    const weights = weightsFor(setting);
    const layer = new MultiHeadAttention(named(weights, setting), heads);
    const [query, key, value] = [setting.query, setting.key, setting.value].map((x) => x && tensor(x));
    const result = layer.forward(query!, key, value, setting.options);
    const outGradient = random(2, setting.query[0]!.length, embedDim) as number[][][];
    const gradients = layer.backward(tensor(outGradient), result);
    const flatGradient = outGradient.flat(2);
    const loss = () =>
      run(setting, weights)
        .flat(2)
        .reduce((sum, x, i) => sum + x * flatGradient[i]!, 0);
    /** The slope of the loss along every number of the rows. */
    const slopes = (rows: number[][]) =>
      rows.flatMap((row) =>
        row.map((x, i) => {
          const step = 1e-5;
          row[i] = x + step;
          const above = loss();
          row[i] = x - step;
          const below = loss();
          row[i] = x;
          return (above - below) / (2 * step);
        }),
      );
    await expectNear(gradients.query, slopes(setting.query.flat()), 2e-5);
    if (setting.key) await expectNear(gradients.key!, slopes(setting.key.flat()), 2e-5);
    else expect(gradients.key).toBeUndefined();
    if (setting.value) await expectNear(gradients.value!, slopes(setting.value.flat()), 2e-5);
    else expect(gradients.value).toBeUndefined();
    if (setting.options.bias) await expectNear(gradients.bias!, slopes(pairBias.flat(2)), 2e-5);
    else expect(gradients.bias).toBeUndefined();

    const expected = named(
      {
        ...(Object.fromEntries(
          (['q', 'k', 'v', 'out'] as const).map((name) => {
            const flat = slopes(weights[name]);
            const width = weights[name][0]!.length;
            return [name, weights[name].map((_, i) => flat.slice(i * width, (i + 1) * width))];
          }),
        ) as Pick<LayerWeights, 'q' | 'k' | 'v' | 'out'>),
        biases: weights.biases.map((row) => slopes([row])),
      },
      setting,
    );
    expect([...gradients.parameters.keys()].sort()).toEqual([...expected.keys()].sort());
    for (const [name, of] of expected) {
      expect(gradients.parameters.get(name)!.shape).toEqual(of.shape);
      await expectNear(gradients.parameters.get(name)!, [...(of.dataSync() as Float32Array)], 2e-5);
    }
  });

  it('gives the bias alone to a query that sees no key, and takes sequences of length 0', async () => {
    const [, setting] = settings[0]!;
    const layer = new MultiHeadAttention(named(weightsFor(setting), setting), heads);
    const keyMask = full([2, 4], { dtype: 'bool' });
    const blind = await layer.forward(tensor(setting.query), undefined, undefined, { keyMask }).out.data();
    const bias = [...((await layer.parameters.get('out_proj.bias')!.data()) as Float32Array)];
    expect([...blind]).toEqual(Array.from({ length: 8 }, () => bias).flat());
    const none = layer.forward(full([2, 3, embedDim]), full([2, 0, embedDim]));
    expect([...(await none.out.data())]).toEqual(Array.from({ length: 6 }, () => bias).flat());
    const empty = layer.forward(full([2, 0, embedDim]));
    expect((await empty.out.data()).length).toBe(0);
    const gradients = layer.backward(full([2, 0, embedDim]), empty);
    expect([...(await gradients.parameters.get('out_proj.bias')!.data())]).toEqual(Array(embedDim).fill(0));
  });

  it('starts at random, and comes back from its file, under a prefix too', async () => {
    const layer = await MultiHeadAttention.create(64, 4, { seed: 5 });
    const weight = (await layer.parameters.get('in_proj_weight')!.data()) as Float32Array;
    const bound = Math.sqrt(6 / (4 * 64));
    const most = weight.reduce((a, x) => Math.max(a, Math.abs(x)), 0);
    expect([most <= bound * 1.000001, most > 0.99 * bound]).toEqual([true, true]);
    const mean = weight.reduce((a, x) => a + x, 0) / weight.length;
    expect(Math.abs(mean)).toBeLessThan(5 * (bound / Math.sqrt(3) / Math.sqrt(weight.length)));
    const wide = await MultiHeadAttention.create(64, 4, { keyDim: 8, valueDim: 9, bias: false });
    expect([...wide.parameters].map(([name, t]) => [name, t.shape])).toEqual([
      ['q_proj_weight', [64, 64]],
      ['k_proj_weight', [64, 8]],
      ['v_proj_weight', [64, 9]],
      ['out_proj.weight', [64, 64]],
    ]);

    const path = join(mkdtempSync(join(tmpdir(), 'topknot-')), 'layer.safetensors');
    await layer.save(path, { prefix: 'blocks.0.attention.' });
    expect([...(await readSafetensors(path)).tensors.keys()].sort()).toEqual(
      ['in_proj_bias', 'in_proj_weight', 'out_proj.bias', 'out_proj.weight'].map((n) => `blocks.0.attention.${n}`),
    );
    const again = await MultiHeadAttention.load(path, 4, { prefix: 'blocks.0.attention.' });
    const x = tensor(random(1, 9, 64));
    const before = threads();
    const one = await layer.forward(x).out.data();
    setThreads(1);
    expect(await again.forward(x).out.data()).toEqual(one);
    setThreads(before);
    await expect(MultiHeadAttention.load(path, 4)).rejects.toMatchObject({ code: 'ERR_ARGUMENT' });
    await expect(MultiHeadAttention.load(path, 5, { prefix: 'blocks.0.attention.' })).rejects.toMatchObject({
      code: 'ERR_SHAPE',
      message: expect.stringContaining('heads: expected a number that divides 64'),
    });
    await writeSafetensors(path, [['in_proj_weight', full([12, 4])]]);
    await expect(MultiHeadAttention.load(path, 2)).rejects.toMatchObject({ code: 'ERR_ARGUMENT' });
  });

  it('names what is wrong', async () => {
    const [, setting] = settings[0]!;
    const parameters = named(weightsFor(setting), setting);
    const layer = new MultiHeadAttention(parameters, heads);
    const changed = (name: string, t: Tensor) => () => new MultiHeadAttention(new Map(parameters).set(name, t), heads);
    const x = full([2, 4, embedDim]);
    const bad: [string, string, () => unknown][] = [
      ['ERR_SHAPE', 'heads: expected a number that divides 6', () => new MultiHeadAttention(parameters, 4)],
      ['ERR_RANGE', 'heads:', () => new MultiHeadAttention(parameters, 0)],
      ['ERR_ARGUMENT', "'in_proj.weight'", changed('in_proj.weight', x)],
      ['ERR_ARGUMENT', 'not both', changed('q_proj_weight', x)],
      ['ERR_ARGUMENT', "expected 'out_proj.weight'", () => new MultiHeadAttention([['in_proj_weight', x]], 2)],
      ['ERR_SHAPE', "parameters 'in_proj_bias': expected shape [18]", changed('in_proj_bias', full([17]))],
      ['ERR_DTYPE', "parameters 'in_proj_bias'", changed('in_proj_bias', full([18], { dtype: 'bfloat16' }))],
      ['ERR_SHAPE', 'query:', () => layer.forward(full([4, embedDim]))],
      ['ERR_SHAPE', 'query:', () => layer.forward(full([2, 4, 5]))],
      ['ERR_SHAPE', 'key:', () => layer.forward(x, full([3, 4, embedDim]))],
      ['ERR_SHAPE', 'value:', () => layer.forward(x, x, full([2, 5, embedDim]))],
      ['ERR_DTYPE', 'key:', () => layer.forward(x, full([2, 4, embedDim], { dtype: 'bfloat16' }) as never)],
      ['ERR_SHAPE', 'keyMask:', () => layer.forward(x, x, x, { keyMask: full([4, 2], { dtype: 'bool' }) })],
      ['ERR_SHAPE', 'bias:', () => layer.forward(x, x, x, { bias: full([1, 1, 5, 4]) })],
      ['ERR_ARGUMENT', 'queryOffsets', () => layer.forward(x, x, x, { queryOffsets: Int32Array.of(0) } as never)],
      ['ERR_ARGUMENT', 'options.mask', () => layer.forward(x, x, x, { mask: 1 } as never)],
      ['ERR_SHAPE', 'outGradient:', () => layer.backward(full([2, 3, embedDim]), layer.forward(x))],
    ];
    for (const [code, message, call] of bad)
      expect(call, message).toThrow(expect.objectContaining({ code, message: expect.stringContaining(message) }));
    await expect(MultiHeadAttention.create(6, 4)).rejects.toMatchObject({ code: 'ERR_SHAPE' });
    await expect(MultiHeadAttention.create(6, 2, { kdim: 3 } as never)).rejects.toMatchObject({ code: 'ERR_ARGUMENT' });
  });
});
