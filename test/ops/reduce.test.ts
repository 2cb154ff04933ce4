import { describe, expect, it } from 'vitest';
import {
  full,
  max,
  maxBackward,
  mean,
  meanBackward,
  setThreads,
  sum,
  sumBackward,
  tensor,
  threads,
} from '../../lib/index.js';
import { centralDifferences, type Grid, reduce } from '../reference/blocks.js';
import { draw, expectNear, forEachIsa, tensorOf } from './blocks.js';

const next = draw(9);
const total = (values: number[]) => values.reduce((s, v) => s + v, 0);
const kinds = {
  sum: [sum, sumBackward, total],
  mean: [mean, meanBackward, (values: number[]) => total(values) / values.length],
  max: [max, maxBackward, (values: number[]) => values.reduce((m, v) => Math.max(m, v), Number.NEGATIVE_INFINITY)],
} as const;

describe.each(Object.keys(kinds) as (keyof typeof kinds)[])('%s', (name) => {
  const [forward, backward, f] = kinds[name];

  it('matches its definition and central differences, along every axis and over all', async () => {
    await forEachIsa(async () => {
      for (const shape of [[5], [3, 4], [2, 3, 17], [19, 2], []]) {
        for (const axis of [undefined, ...shape.keys(), ...shape.map((_, i) => -1 - i)]) {
          const x = next(...shape);
          const options = { axis, keepDims: x.data.length % 2 === 0 };
          const expected = reduce(x, axis, f, options.keepDims);
          await expectNear(forward(tensorOf(x), options), expected);
          const weights = next(...expected.shape);
          const slope = centralDifferences(x, weights.data, (y) => reduce(y, axis, f, options.keepDims), 1e-6);
          await expectNear(backward(tensorOf(weights), tensorOf(x), options), { shape: x.shape, data: slope });
        }
      }
    });
  });

  it.skipIf(process.env.TOPKNOT_TEST_DEVICE)(
    'takes long rows, long columns and wide ones, the same at any number of threads',
    async () => {
      const before = threads();
      const cases: [Grid, number | undefined][] = [
        [next(20_000), undefined],
        [next(2, 9_001), 1],
        [next(1_501, 20), 0],
        [next(2, 5_003), 0],
        [next(2, 700, 9), 1],
      ];
      try {
        for (const [x, axis] of cases) {
          const t = tensorOf(x);
          setThreads(1);
          const one = forward(t, { axis });
          await expectNear(one, reduce(x, axis, f), 1e-4);
          const bytes = await one.data();
          for (const count of [2, 4]) {
            setThreads(count);
            expect(await forward(t, { axis }).data()).toEqual(bytes);
          }
        }
      } finally {
        setThreads(before);
      }
    },
  );

  it('lets NaN through', async () => {
    await forEachIsa(async () => {
      for (const place of [0, 5, 18]) {
        const data = Float32Array.from({ length: 19 }, (_, i) => (i === place ? Number.NaN : i));
        expect((await forward(tensor(data)).data())[0]).toBeNaN();
        expect((await forward(tensor(data, { shape: [19, 1] }), { axis: 0 }).data())[0]).toBeNaN();
      }
    });
  });

  it('names what is wrong', () => {
    const x = full([2, 3]);
    expect(() => forward(x, { axis: 2 })).toThrow(/axis: expected -2 to 1 for shape \[2, 3\]/);
    expect(() => forward(x, { axis: 0.5 })).toThrow(/axis: expected an integer/);
    expect(() => forward(x, { dim: 0 } as never)).toThrow(/options.dim: no such option/);
    expect(() => forward(x, { keepDims: 1 as never })).toThrow(/keepDims: expected a boolean/);
    expect(() => forward(full([2], { dtype: 'int32' }) as never)).toThrow(/x: expected float32/);
    expect(() => backward(x, x)).toThrow(/outGradient: expected shape \[\]/);
  });
});

it('sums nothing to zero, but has no mean or maximum of it', async () => {
  expect([...(await sum(full([2, 0]), { axis: 1 }).data())]).toEqual([0, 0]);
  expect(await sum(full([0, 3])).data()).toEqual(new Float32Array([0]));
  expect(() => mean(full([2, 0]), { axis: 1 })).toThrow(/x: expected at least one element to take the mean of/);
  expect(() => max(full([0]))).toThrow(/x: expected at least one element to take the maximum of/);
});

it('gives the gradient of a maximum to the first that has it', async () => {
  const x = tensor([
    [1, 3, 3],
    [2, 2, 2],
  ]);
  expect([...(await maxBackward(tensor([5, 7]), x, { axis: 1 }).data())]).toEqual([0, 5, 0, 7, 0, 0]);
});
