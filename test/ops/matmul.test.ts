import { describe, expect, it } from 'vitest';
import { full, type MatmulOptions, matmul, matmulBackward, setThreads, tensor, threads } from '../../lib/index.js';
import { centralDifferences, type Grid, matmul as reference } from '../reference/blocks.js';
import { draw, expectNear, forEachIsa, tensorOf } from './blocks.js';

const next = draw(5);
const activations = ['none', 'relu', 'gelu', 'geluTanh', 'sigmoid', 'tanh', 'silu'] as const;
const transposes = [
  [false, false],
  [false, true],
  [true, false],
  [true, true],
] as const;

/** a [m, k] and b [k, n], stored as the transposes ask, under the given batches. */
const operands = (m: number, n: number, k: number, tA: boolean, tB: boolean, aBatch: number[] = [], bBatch = aBatch) =>
  [next(...aBatch, ...(tA ? [k, m] : [m, k])), next(...bBatch, ...(tB ? [n, k] : [k, n]))] as const;

const optionsOf = (
  transposeA: boolean,
  transposeB: boolean,
  bias: Grid | undefined,
  activation: MatmulOptions['activation'],
) => ({ transposeA, transposeB, bias: bias && tensorOf(bias), activation }) satisfies MatmulOptions;

describe('matmul', () => {
  it('multiplies all transposes, with bias and activation', async () => {
    await forEachIsa(async () => {
      for (const [tA, tB] of transposes) {
        for (const activation of activations) {
          const [a, b] = operands(13, 19, 23, tA, tB);
          const bias = activation === 'silu' ? undefined : next(19);
          const expected = reference(a, b, { transposeA: tA, transposeB: tB, ...(bias && { bias }), activation });
          await expectNear(matmul(tensorOf(a), tensorOf(b), optionsOf(tA, tB, bias, activation)), expected, 4e-6);
        }
      }
    });
  });

  it.each([
    [[3], [3]],
    [[4], []],
    [[], [4]],
    [
      [2, 1, 3],
      [4, 1],
    ],
    [
      [2, 3],
      [1, 1],
    ],
    [[0], [0]],
  ])('broadcasts batches %j and %j', async (aBatch, bBatch) => {
    for (const [tA, tB] of transposes) {
      const [a, b] = operands(3, 5, 4, tA, tB, aBatch, bBatch);
      const expected = reference(a, b, { transposeA: tA, transposeB: tB });
      await expectNear(matmul(tensorOf(a), tensorOf(b), { transposeA: tA, transposeB: tB }), expected);
    }
  });

  it.each(['float16', 'bfloat16'] as const)('reads %s and adds up in float32', async (dtype) => {
    await forEachIsa(async () => {
      const [a, b] = operands(9, 21, 40, false, true).map((x) => tensorOf(x).cast(dtype));
      const rounded = async (x: typeof a) => ({ shape: x!.shape, data: [...(await x!.data())] });
      const expected = reference(await rounded(a), await rounded(b), { transposeB: true });
      await expectNear(matmul(a!, b!, { transposeB: true }), expected, 4e-6);
    });
  });

  it('makes sums of nothing zero, and the bias alone', async () => {
    const out = matmul(full([2, 0]), full([0, 3]), { bias: tensor([1, 2, 3]) });
    expect([...(await out.data())]).toEqual([1, 2, 3, 1, 2, 3]);
  });

  it('lets NaN through to its row and column alone', async () => {
    const out = await matmul(
      tensor([
        [Number.NaN, 1],
        [2, 3],
      ]),
      tensor([
        [1, 2],
        [3, 4],
      ]),
      { activation: 'relu' },
    ).data();
    expect([...out]).toEqual([Number.NaN, Number.NaN, 11, 16]);
  });

  it.skipIf(process.env.TOPKNOT_TEST_DEVICE)('gives the same bytes at any number of threads', async () => {
    const before = threads();
    const [a, b] = [next(130, 300), next(300, 70)].map(tensorOf);
    const long = [next(2100, 20), next(2100, 30)].map(tensorOf);
    const made = async () => [
      await matmul(a!, b!, { activation: 'gelu' }).data(),
      await matmul(long[0]!, long[1]!, { transposeA: true }).data(),
    ];
    try {
      setThreads(1);
      const one = await made();
      for (const count of [2, 3, 4]) {
        setThreads(count);
        expect(await made()).toEqual(one);
      }
    } finally {
      setThreads(before);
    }
  });

  it('names what is wrong', async () => {
    const a = full([2, 3]);
    expect(() => matmul(a, full([2, 4]))).toThrow(/ERR_SHAPE|b: expected 3 rows, one for each column of a/);
    expect(() => matmul(a, full([4, 2]), { transposeB: true })).toThrow(/b: expected 3 columns/);
    expect(() => matmul(a, full([3]))).toThrow(/b: expected at least two dimensions/);
    expect(() => matmul(full([2, 2, 3]), full([3, 3, 4]))).toThrow(/before its last two dimensions/);
    expect(() => matmul(a, full([3, 4], { dtype: 'bfloat16' }) as never)).toThrow(/b: expected float32, as a/);
    expect(() => matmul(full([2, 3], { dtype: 'int32' }) as never, a as never)).toThrow(/a: expected float32, float16/);
    expect(() => matmul(a, full([3, 4]), { bias: full([3]) })).toThrow(/bias: expected shape \[4\]/);
    expect(() => matmul(a, full([3, 4]), { bias: 1 as never })).toThrow(/bias: expected a Tensor/);
    expect(() => matmul(a, full([3, 4]), { activation: 'exp' as never })).toThrow(/activation: expected 'none' or/);
    expect(() => matmul(a, full([3, 4]), { transposeC: true } as never)).toThrow(/options.transposeC: no such option/);
    expect(() => matmulBackward(a, a, full([3, 4]), full([2, 4]))).toThrow(/outGradient: expected shape \[2, 4\]/);
    const failed = full([2, 3], { value: 300 }).cast('int8').cast('float32');
    await expect(matmul(failed, full([3, 4])).data()).rejects.toMatchObject({ code: 'ERR_RANGE' });
  });
});

describe('matmulBackward', () => {
  async function check(
    a: Grid,
    b: Grid,
    bias: Grid | undefined,
    tA: boolean,
    tB: boolean,
    activation: (typeof activations)[number],
  ) {
    const forward = (x: Grid, y: Grid, z: Grid | undefined) =>
      reference(x, y, { transposeA: tA, transposeB: tB, ...(z && { bias: z }), activation });
    const weights = next(...forward(a, b, bias).shape);
    const options = optionsOf(tA, tB, bias, activation);
    const [ta, tb] = [tensorOf(a), tensorOf(b)];
    const made = matmulBackward(tensorOf(weights), ta, tb, matmul(ta, tb, options), options);
    const difference = (x: Grid, f: (x: Grid) => Grid) => ({
      shape: x.shape,
      data: centralDifferences(x, weights.data, f),
    });
    await expectNear(
      made.a,
      difference(a, (x) => forward(x, b, bias)),
      5e-6,
    );
    await expectNear(
      made.b,
      difference(b, (x) => forward(a, x, bias)),
      5e-6,
    );
    if (bias)
      await expectNear(
        made.bias,
        difference(bias, (x) => forward(a, b, x)),
        5e-6,
      );
    else expect(made.bias).toBeUndefined();
  }

  it('matches central differences for all transposes and activations', async () => {
    await forEachIsa(async () => {
      for (const [tA, tB] of transposes) {
        for (const activation of activations) {
          const [a, b] = operands(4, 5, 3, tA, tB);
          await check(a, b, activation === 'tanh' ? undefined : next(5), tA, tB, activation);
        }
      }
    });
  });

  it.each([
    [[3], [3]],
    [[3], []],
    [[], [3]],
    [
      [2, 1, 2],
      [3, 1],
    ],
  ])('sums over what batches %j and %j repeat', async (aBatch, bBatch) => {
    for (const [tA, tB] of transposes) {
      const [a, b] = operands(2, 3, 2, tA, tB, aBatch, bBatch);
      await check(a, b, next(3), tA, tB, 'sigmoid');
    }
  });
});
