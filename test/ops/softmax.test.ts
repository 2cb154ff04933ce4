import { describe, expect, it } from 'vitest';
import { full, logSoftmax, logSoftmaxBackward, softmax, softmaxBackward, tensor } from '../../lib/index.js';
import { centralDifferences, type Grid, rows, softmaxRow } from '../reference/blocks.js';
import { draw, expectNear, forEachIsa, tensorOf } from './blocks.js';

const next = draw(13);
const { NaN: nan, POSITIVE_INFINITY: infinity } = Number;

describe.each([
  ['softmax', softmax, softmaxBackward, false],
  ['logSoftmax', logSoftmax, logSoftmaxBackward, true],
] as const)('%s', (_, forward, backward, log) => {
  const reference = (x: Grid) => rows(x, (row) => softmaxRow(row, log));

  it('matches its definition and central differences', async () => {
    await forEachIsa(async () => {
      for (const shape of [[1], [7], [3, 8], [2, 3, 19], [2, 40], [0, 4]]) {
        const x = next(...shape);
        const out = forward(tensorOf(x));
        await expectNear(out, reference(x));
        const weights = next(...shape);
        const slope = { shape: x.shape, data: centralDifferences(x, weights.data, reference) };
        await expectNear(backward(tensorOf(weights), out), slope, 4e-6);
      }
      const many = next(300, 200);
      await expectNear(forward(tensorOf(many)), reference(many));
    });
  });

  it('neither overflows nor loses large scores', async () => {
    await forEachIsa(async () => {
      const x = { shape: [2, 3], data: [1000, 999, -1000, -1e30, 1e30, 0] };
      await expectNear(forward(tensorOf(x)), reference(x));
    });
  });

  it('treats hidden, infinite and missing scores alike on all instruction sets', async () => {
    await forEachIsa(async () => {
      for (const width of [3, 16, 21]) {
        const row = (first: number, rest: number) => [first, ...Array(width - 1).fill(rest)];
        const values = async (data: number[]) => [...(await forward(tensor(data)).data())];
        expect(await values(row(-infinity, -infinity))).toEqual(Array(width).fill(log ? -infinity : 0));
        expect(await values(row(0, -infinity))).toEqual(log ? row(0, -infinity) : row(1, 0));
        for (const bad of [row(nan, 0), row(0, nan), row(nan, -infinity), [...Array(width - 1).fill(-infinity), nan]])
          expect(await values(bad)).toEqual(Array(width).fill(nan));
        expect((await values(row(infinity, 0)))[0]).toBeNaN();
      }
    });
  });

  it('names what is wrong', () => {
    expect(() => forward(full([]))).toThrow(/x: expected at least one dimension/);
    expect(() => forward(full([2], { dtype: 'float64' }) as never)).toThrow(/x: expected float32/);
    expect(() => backward(full([2]), full([3]))).toThrow(/outGradient: expected shape \[3\], that of out/);
  });
});
