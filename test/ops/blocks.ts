// What the tests of the building blocks share.
import { expect } from 'vitest';
import { isa, isas, type Tensor, tensor, useIsa } from '../../lib/index.js';
import { numbers } from '../models/suite.js';
import { type Grid, gridOf } from '../reference/blocks.js';

/** A grid of float32 numbers around 0, and its tensor. */
export function draw(seed: number): (...shape: number[]) => Grid {
  const next = numbers(seed);
  return (...shape) => gridOf(shape, () => Math.fround(2 * (next() + next() + next()) - 3));
}

export const tensorOf = ({ shape, data }: Grid): Tensor<'float32'> => tensor(Float32Array.from(data), { shape });

export async function expectNear(actual: Tensor<'float32'> | undefined, expected: Grid, tolerance = 2e-6) {
  expect(actual!.shape).toEqual(expected.shape);
  const data = await actual!.data();
  let worst = 0;
  expected.data.forEach((e, i) => {
    const error = Object.is(data[i], e) ? 0 : Math.abs(data[i]! - e) / (1 + Math.abs(e));
    worst = Math.max(worst, Number.isNaN(error) ? Number.POSITIVE_INFINITY : error);
  });
  expect(worst).toBeLessThan(tolerance);
}

/** Runs the body on every instruction set of this machine. */
export async function forEachIsa(body: () => Promise<void>) {
  const before = isa();
  try {
    for (const name of isas()) {
      useIsa(name);
      await body();
    }
  } finally {
    useIsa(before);
  }
}
