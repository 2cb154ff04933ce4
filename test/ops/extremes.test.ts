// Singular values of matrices with nothing in them, and with very large or small numbers.
import { expect, it } from 'vitest';
import { CsrMatrix, svd, tensor, truncatedSvd } from '../../lib/index.js';
import { numbers } from '../models/suite.js';

const next = numbers(1);

it('svd of matrices with an empty side', async () => {
  for (const shape of [
    [70, 0],
    [0, 70],
    [2, 70, 0],
  ]) {
    const { s } = svd(tensor(new Float32Array(0), { shape }));
    expect((await s.data()).length).toBe(0);
  }
});

it('truncatedSvd does not depend on the scale of the values', async () => {
  const [rows, cols] = [40, 30];
  const cells = Array.from(
    { length: 200 },
    () => [Math.floor(next() * rows), Math.floor(next() * cols), 1 + next() * 9] as const,
  );
  const singular = async (scale: number) => {
    const matrix = await CsrMatrix.fromCoo(
      Int32Array.from(cells, (c) => c[0]),
      Int32Array.from(cells, (c) => c[1]),
      Float32Array.from(cells, (c) => c[2] * scale),
      { shape: [rows, cols] },
    );
    const { s } = await truncatedSvd(matrix, 4);
    return [...(await s.data())].map((x) => x / scale);
  };
  const wanted = await singular(1);
  for (const scale of [1e20, 1e-25, 2 ** 40])
    for (const [i, x] of (await singular(scale)).entries()) expect(x / wanted[i]!).toBeCloseTo(1, 4);
});
