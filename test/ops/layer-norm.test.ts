import { describe, expect, it } from 'vitest';
import { full, layerNorm, layerNormBackward, setThreads, threads } from '../../lib/index.js';
import { centralDifferences, type Grid, layerNormRow, rows } from '../reference/blocks.js';
import { draw, expectNear, forEachIsa, tensorOf } from './blocks.js';

const next = draw(17);
const reference = (x: Grid, eps: number, weight?: Grid, bias?: Grid) =>
  rows(x, (row) => layerNormRow(row, eps, weight?.data, bias?.data));

describe('layerNorm', () => {
  it('matches its definition and central differences', async () => {
    await forEachIsa(async () => {
      for (const [shape, weighted, biased] of [
        [[5], true, true],
        [[3, 8], true, false],
        [[2, 3, 19], true, true],
        [[4, 33], false, true],
        [[6, 4], false, false],
      ] as const) {
        const [x, cols, eps] = [next(...shape), shape.at(-1)!, 0.01];
        const weight = weighted ? next(cols) : undefined;
        const bias = biased ? next(cols) : undefined;
        const options = { eps, weight: weight && tensorOf(weight), bias: bias && tensorOf(bias) };
        await expectNear(layerNorm(tensorOf(x), options), reference(x, eps, weight, bias), 4e-6);
        const g = next(...shape);
        const made = layerNormBackward(tensorOf(g), tensorOf(x), options);
        const slope = (of: Grid, f: (v: Grid) => Grid) => ({
          shape: of.shape,
          data: centralDifferences(of, g.data, f),
        });
        await expectNear(
          made.x,
          slope(x, (v) => reference(v, eps, weight, bias)),
          1e-5,
        );
        if (weight)
          await expectNear(
            made.weight,
            slope(weight, (v) => reference(x, eps, v, bias)),
            4e-6,
          );
        else expect(made.weight).toBeUndefined();
        if (bias)
          await expectNear(
            made.bias,
            slope(bias, (v) => reference(x, eps, weight, v)),
            4e-6,
          );
        else expect(made.bias).toBeUndefined();
      }
    });
  });

  it('keeps its digits where the mean is large against the spread', async () => {
    await forEachIsa(async () => {
      const x = { shape: [2, 64], data: next(128).data.map((v) => Math.fround(1000 + v)) };
      await expectNear(layerNorm(tensorOf(x)), reference(x, 1e-5), 2e-4);
    });
  });

  it('gives the bias for rows of one value', async () => {
    const out = layerNorm(full([2, 5], { value: 3 }), { bias: full([5], { value: 2 }) });
    expect([...(await out.data())]).toEqual(Array(10).fill(2));
  });

  it.skipIf(process.env.TOPKNOT_TEST_DEVICE)('gives the same bytes at any number of threads', async () => {
    const before = threads();
    const [x, g, weight] = [next(1000, 50), next(1000, 50), next(50)].map(tensorOf);
    const bytes = async () => {
      const made = layerNormBackward(g!, x!, { weight, bias: weight });
      return Promise.all([layerNorm(x!).data(), made.x.data(), made.weight!.data(), made.bias!.data()]);
    };
    try {
      setThreads(1);
      const one = await bytes();
      setThreads(4);
      expect(await bytes()).toEqual(one);
    } finally {
      setThreads(before);
    }
  });

  it('names what is wrong', () => {
    const x = full([2, 3]);
    expect(() => layerNorm(full([]))).toThrow(/x: expected a last dimension of at least 1/);
    expect(() => layerNorm(full([2, 0]))).toThrow(/x: expected a last dimension of at least 1/);
    expect(() => layerNorm(x, { weight: full([2]) })).toThrow(/weight: expected shape \[3\], the last dimension of x/);
    expect(() => layerNorm(x, { bias: 1 as never })).toThrow(/bias: expected a Tensor/);
    expect(() => layerNorm(x, { eps: -1 })).toThrow(/eps: expected 0 or more/);
    expect(() => layerNorm(x, { epsilon: 1 } as never)).toThrow(/options.epsilon: no such option/);
    expect(() => layerNorm(full([2, 3], { dtype: 'float16' }) as never)).toThrow(/x: expected float32/);
    expect(() => layerNormBackward(full([2]), x)).toThrow(/outGradient: expected shape \[2, 3\]/);
  });
});
