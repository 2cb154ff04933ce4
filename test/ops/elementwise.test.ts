import { describe, expect, it } from 'vitest';
import * as topknot from '../../lib/index.js';
import { full, type Operand, tensor } from '../../lib/index.js';
import { centralDifferences, combine, functions, type Grid, gridOf } from '../reference/blocks.js';
import { draw, expectNear, forEachIsa, tensorOf } from './blocks.js';

const { add, addBackward, divide, divideBackward, gelu, geluBackward, multiply, multiplyBackward } = topknot;
const { subtract, subtractBackward } = topknot;
const next = draw(7);
type Floats = topknot.Tensor<'float32'>;

const unary = {
  relu: [topknot.relu, topknot.reluBackward],
  gelu: [gelu, geluBackward],
  geluTanh: [
    (x: Floats) => gelu(x, { approximate: 'tanh' }),
    (g: Floats, x: Floats) => geluBackward(g, x, { approximate: 'tanh' }),
  ],
  sigmoid: [topknot.sigmoid, topknot.sigmoidBackward],
  tanh: [topknot.tanh, topknot.tanhBackward],
  silu: [topknot.silu, topknot.siluBackward],
  exp: [topknot.exp, topknot.expBackward],
  log: [topknot.log, topknot.logBackward],
  sqrt: [topknot.sqrt, topknot.sqrtBackward],
} as const;
type Name = keyof typeof unary;

const { NaN: nan, POSITIVE_INFINITY: infinity } = Number;

describe.each(Object.keys(unary) as Name[])('%s', (name) => {
  const [forward, backward] = unary[name];
  const positive = name === 'log' || name === 'sqrt';
  // From tiny to where float32 ends: relative errors count, as everything that follows multiplies them.
  const magnitudes = Array.from({ length: 600 }, (_, i) => Math.fround(10 ** (i / 100 - 4.5)));
  const points = (positive ? magnitudes : [...magnitudes, 0, ...magnitudes.map((x) => -x)]).filter(
    (x) => name === 'relu' || positive || Math.abs(x) < 8,
  );

  it('matches its definition', async () => {
    await forEachIsa(async () => {
      const out = await forward(tensor(points)).data();
      points.forEach((x, i) => {
        const expected = functions[name](x);
        // An exponent of x² is rounded before it is raised.
        const relative = 3e-6 + (name.startsWith('gelu') ? 2e-7 * x * x : 0);
        expect(Math.abs(out[i]! - expected)).toBeLessThanOrEqual(relative * Math.abs(expected) + 1e-37);
      });
    });
  });

  it('has the slope that central differences show', async () => {
    await forEachIsa(async () => {
      const x = points.filter((v) => Math.abs(v) > 1e-3 && Math.abs(v) < 30);
      const gradient = x.map((_, i) => 1 + (i % 3));
      const out = await backward(tensor(gradient), tensor(x)).data();
      x.forEach((v, i) => {
        const h = 1e-5 * Math.abs(v);
        const slope = (gradient[i]! * (functions[name](v + h) - functions[name](v - h))) / (2 * h);
        expect(Math.abs(out[i]! - slope)).toBeLessThan(5e-6 * (1 + Math.abs(slope)));
      });
    });
  });

  it('treats NaN and the ends of the numbers as their limits', async () => {
    const ends: Record<Name, number[]> = {
      relu: [nan, infinity, 0],
      gelu: [nan, infinity, nan],
      geluTanh: [nan, infinity, nan],
      sigmoid: [nan, 1, 0],
      tanh: [nan, 1, -1],
      silu: [nan, infinity, nan],
      exp: [nan, infinity, 0],
      log: [nan, infinity, nan],
      sqrt: [nan, infinity, nan],
    };
    await forEachIsa(async () => {
      expect([...(await forward(tensor([nan, infinity, -infinity])).data())]).toEqual(ends[name]);
      expect((await backward(tensor([1]), tensor([nan])).data())[0]).toBeNaN();
    });
  });
});

describe('elementwise functions of two tensors', () => {
  const binary = {
    add: [add, addBackward, (x: number, y: number) => x + y],
    subtract: [subtract, subtractBackward, (x: number, y: number) => x - y],
    multiply: [multiply, multiplyBackward, (x: number, y: number) => x * y],
    divide: [divide, divideBackward, (x: number, y: number) => x / y],
  } as const;
  /** Away from zero, where a quotient has no slope to compare. */
  const draws = (...shape: number[]): Grid => {
    const grid = next(...shape);
    return gridOf(shape, () => 0).data.length
      ? { shape, data: grid.data.map((x) => x + Math.sign(x)).map(Math.fround) }
      : grid;
  };
  const shapes: [number[], number[]][] = [
    [[37], [37]],
    [[3, 20], [20]],
    [
      [3, 20],
      [3, 1],
    ],
    [
      [3, 1, 5],
      [4, 1],
    ],
    [[], [3, 2]],
    [[1], []],
    [
      [2, 1, 3, 1, 2],
      [1, 2, 1, 2, 2],
    ],
    [[0, 4], [4]],
  ];

  it.each(shapes)('broadcast %j and %j, forward and backward', async (aShape, bShape) => {
    await forEachIsa(async () => {
      for (const [forward, backward, f] of Object.values(binary)) {
        const [a, b] = [draws(...aShape), draws(...bShape)];
        const [ta, tb] = [tensorOf(a), tensorOf(b)];
        const expected = combine(a, b, f);
        await expectNear(forward(ta, tb), expected);
        const weights = next(...expected.shape);
        const made = backward(tensorOf(weights), ta, tb);
        const difference = (x: Grid, g: (x: Grid) => Grid) => ({
          shape: x.shape,
          data: centralDifferences(x, weights.data, g),
        });
        await expectNear(
          made.a,
          difference(a, (x) => combine(x, b, f)),
          4e-6,
        );
        await expectNear(
          made.b,
          difference(b, (x) => combine(a, x, f)),
          4e-6,
        );
      }
    });
  });

  it('take long rows and many short ones', async () => {
    for (const [aShape, bShape] of [
      [[2, 70_000], [70_000]],
      [[9_000, 7], [7]],
      [
        [9_000, 7],
        [9_000, 1],
      ],
    ] as const) {
      const [a, b] = [next(...aShape), next(...bShape)];
      await expectNear(
        multiply(tensorOf(a), tensorOf(b)),
        combine(a, b, (x, y) => x * y),
      );
    }
  });

  it('take numbers on either side, which have no gradient', async () => {
    const x = tensor([1, 2, 4]);
    const values = async (a: Operand, b: Operand) => [
      [...(await add(a, b).data())],
      [...(await subtract(a, b).data())],
      [...(await multiply(a, b).data())],
      [...(await divide(a, b).data())],
    ];
    expect(await values(x, 2)).toEqual([
      [3, 4, 6],
      [-1, 0, 2],
      [2, 4, 8],
      [0.5, 1, 2],
    ]);
    expect(await values(2, x)).toEqual([
      [3, 4, 6],
      [1, 0, -2],
      [2, 4, 8],
      [2, 1, 0.5],
    ]);
    const { a, b } = divideBackward(tensor([1, 1, 1]), 2, x);
    expect(a).toBeUndefined();
    expect([...(await b!.data())]).toEqual([-2, -0.5, -0.125]);
  });

  it('name what is wrong', () => {
    const x = full([2, 3]);
    expect(() => add(x, full([2]))).toThrow(/b: expected dimensions that are equal to those of a/);
    expect(() => add(x, full([3], { dtype: 'float64' }) as never)).toThrow(/b: expected float32 but received float64/);
    expect(() => add(1, 2)).toThrow(/a: expected a Tensor/);
    expect(() => add(x, 'x' as never)).toThrow(/b: expected a Tensor or a number/);
    expect(() => addBackward(full([2]), x, x)).toThrow(/outGradient: expected shape \[2, 3\]/);
    expect(() => topknot.relu(full([2], { dtype: 'int8' }) as never)).toThrow(/x: expected float32/);
    expect(() => topknot.reluBackward(full([3]), full([2]))).toThrow(/outGradient: expected shape \[2\]/);
    expect(() => gelu(x, { approximate: 'erf' as never })).toThrow(/approximate: expected 'none' or 'tanh'/);
  });
});
