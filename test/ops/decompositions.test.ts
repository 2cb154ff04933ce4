import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { cholesky, eigh, luSolve, qr, type Real, svd, type Tensor, tensor } from '../../lib/index.js';
import { numbers } from '../models/suite.js';
import {
  type Matrix,
  matricesOf,
  multiply,
  norm,
  orthogonality,
  residual,
  subtract,
  transpose,
} from '../reference/linalg.js';

const next = numbers(31);
const thrown = (code: string, message = /./) =>
  expect.objectContaining({ code, message: expect.stringMatching(message) });
const random = (rows: number, cols: number): Matrix =>
  Array.from({ length: rows }, () => Array.from({ length: cols }, () => 2 * next() - 1));
const epsilon = { float32: 2 ** -24, float64: 2 ** -53 };
const read = (t: Tensor<Real>) => matricesOf(t.dataSync(), t.shape.at(-2)!, t.shape.at(-1)!);
/** ‖a - b‖ / ‖b‖ */
const distance = (a: Matrix, b: Matrix) => norm(subtract(a, b)) / (norm(b) || 1);
const scaleColumns = (a: Matrix, by: number[]) => a.map((row) => row.map((x, j) => x * by[j]!));
const side = fc.integer({ min: 1, max: 68 });

describe.each(['float32', 'float64'] as const)('decompositions of %s', (dtype) => {
  const batchOf = (rows: number, cols: number) => tensor([random(rows, cols), random(rows, cols)], { dtype });

  it('luSolve solves', () => {
    fc.assert(
      fc.property(side, fc.integer({ min: 1, max: 5 }), (n, columns) => {
        const [a, b] = [batchOf(n, n), batchOf(n, columns)];
        const { x } = luSolve(a, b, { strict: true });
        read(x).forEach((solution, m) => {
          expect(residual(read(a)[m]!, solution, read(b)[m]!)).toBeLessThan(4 * (n + 4) * epsilon[dtype]);
        });
      }),
      { numRuns: 20 },
    );
  });

  it('qr gives orthonormal columns and a triangle', () => {
    fc.assert(
      fc.property(side, side, (rows, cols) => {
        const a = batchOf(rows, cols);
        const { q, r } = qr(a, { strict: true });
        const k = Math.min(rows, cols);
        expect([q.shape, r.shape]).toEqual([
          [2, rows, k],
          [2, k, cols],
        ]);
        read(a).forEach((matrix, m) => {
          const [Q, R] = [read(q)[m]!, read(r)[m]!];
          expect(distance(multiply(Q, R), matrix)).toBeLessThan((rows + cols) * 4 * epsilon[dtype]);
          expect(orthogonality(Q)).toBeLessThan((rows + cols) * 4 * epsilon[dtype]);
          expect(R.every((row, i) => row.every((x, j) => j >= i || x === 0))).toBe(true);
        });
      }),
      { numRuns: 20 },
    );
  });

  it('eigh gives orthonormal vectors and rising values', () => {
    fc.assert(
      fc.property(side, (n) => {
        const half = random(n, n);
        const symmetric = half.map((row, i) => row.map((x, j) => x + half[j]![i]!));
        const a = tensor([symmetric], { dtype });
        const { values, vectors } = eigh(a, { strict: true });
        const [V, λ] = [read(vectors)[0]!, [...values.dataSync()]];
        expect(λ).toEqual([...λ].sort((x, y) => x - y));
        expect(orthogonality(V)).toBeLessThan(8 * (n + 4) * epsilon[dtype]);
        expect(distance(multiply(scaleColumns(V, λ), transpose(V)), read(a)[0]!)).toBeLessThan(
          8 * (n + 4) * epsilon[dtype],
        );
      }),
      { numRuns: 20 },
    );
  });

  it('svd gives orthonormal vectors and falling values, at any rank', () => {
    fc.assert(
      fc.property(side, side, fc.integer({ min: 0, max: 68 }), (rows, cols, rank) => {
        const inner = Math.min(rank, rows, cols);
        const a = tensor(
          [
            inner > 0
              ? multiply(random(rows, inner), random(inner, cols))
              : random(rows, cols).map((r) => r.map(() => 0)),
          ],
          { dtype },
        );
        const { u, s, vt } = svd(a, { strict: true });
        const [U, σ, Vt] = [read(u)[0]!, [...s.dataSync()], read(vt)[0]!];
        expect(σ).toEqual([...σ].sort((x, y) => y - x));
        expect(σ.at(-1)!).toBeGreaterThanOrEqual(0);
        const limit = 8 * (rows + cols) * epsilon[dtype];
        expect(orthogonality(U)).toBeLessThan(limit);
        expect(orthogonality(transpose(Vt))).toBeLessThan(limit);
        expect(distance(multiply(scaleColumns(U, σ), Vt), read(a)[0]!)).toBeLessThan(limit);
      }),
      { numRuns: 20 },
    );
  });
});

describe('decompositions', () => {
  it('agree with values known in closed form', () => {
    // The second difference matrix: 2 - 2 cos(π k / (n + 1)).
    const n = 9;
    const second = Array.from({ length: n }, (_, i) =>
      Array.from({ length: n }, (_, j) => (i === j ? 2 : Math.abs(i - j) === 1 ? -1 : 0)),
    );
    const exact = Array.from({ length: n }, (_, k) => 2 - 2 * Math.cos((Math.PI * (k + 1)) / (n + 1)));
    const a = tensor(second, { dtype: 'float64' });
    const near = exact.map((x) => expect.closeTo(x, 13));
    expect([...eigh(a).values.dataSync()]).toEqual(near);
    expect([...svd(a).s.dataSync()]).toEqual(near.toReversed());
    expect([
      ...luSolve(
        tensor([
          [0, 2],
          [4, 0],
        ]),
        tensor([2, 8]),
      ).x.dataSync(),
    ]).toEqual([2, 1]);
    expect(
      [
        ...qr(
          tensor(
            [
              [3, 5],
              [4, 10],
            ],
            { dtype: 'float64' },
          ),
        ).r.dataSync(),
      ].map(Math.abs),
    ).toEqual([5, 11, 0, 2].map((x) => expect.closeTo(x, 13)));
  });

  it('tell what is wrong with a matrix, and solve the others', async () => {
    const good = random(3, 3);
    const singular = [
      [1, 2, 3],
      [2, 4, 6],
      [1, 0, 1],
    ];
    const broken = [
      [1, 2, 3],
      [Number.NaN, 4, 6],
      [1, 0, 1],
    ];
    const a = tensor([good, singular, broken, good]);
    const b = tensor(random(4, 3));
    const lu = luSolve(a, b);
    expect([...(await lu.status.data())]).toEqual([0, 3, -1, 0]);
    const x = await lu.x.data();
    expect(x.subarray(3, 9).every(Number.isNaN)).toBe(true);
    const alone = luSolve(tensor(good), tensor(b.dataSync().slice(9)));
    expect(x.slice(9)).toEqual(await alone.x.data());
    await expect(luSolve(a, b, { strict: true }).x.data()).rejects.toEqual(
      thrown('ERR_VALUE', /a: matrix 1 of 4 is singular: pivot 3 of 3 is zero; 2 failed in all/),
    );
    for (const made of [qr(a), eigh(a), svd(a)]) expect([...(await made.status.data())]).toEqual([0, 0, -1, 0]);
    const strict = { strict: true };
    for (const made of [qr(a, strict).r, eigh(a, strict).vectors, svd(a, strict).u]) {
      await expect(made.data()).rejects.toEqual(thrown('ERR_VALUE', /a: matrix 2 of 4 holds .* not finite; 1 failed/));
    }
    expect([...svd(a).s.dataSync()].map(Number.isNaN).slice(3)).toEqual([
      false,
      false,
      false,
      true,
      true,
      true,
      false,
      false,
      false,
    ]);
  });

  it('have empty results for empty batches and matrices', () => {
    const empty = (shape: number[]) => tensor(new Float32Array(0), { shape });
    for (const shape of [
      [0, 4, 4],
      [3, 0, 0],
      [0, 0],
    ]) {
      const a = empty(shape);
      const vector = shape.slice(0, -1);
      const strict = { strict: true };
      expect(luSolve(a, empty(vector), strict).x.dataSync().length).toBe(0);
      expect(eigh(a, strict).values.shape).toEqual(vector);
      expect(eigh(a, strict).vectors.dataSync().length).toBe(0);
    }
    expect([qr(empty([5, 0])).q.shape, qr(empty([0, 5])).r.shape, svd(empty([2, 0, 5])).vt.shape]).toEqual([
      [5, 0],
      [0, 5],
      [2, 0, 5],
    ]);
    expect([...svd(empty([2, 0, 5])).status.dataSync()]).toEqual([0, 0]);
  });

  it('throw at once for shapes, types and options that do not fit', () => {
    const wide = tensor([[1, 2]]);
    expect(() => eigh(wide)).toThrow(thrown('ERR_SHAPE', /a: expected square matrices/));
    expect(() => luSolve(wide, tensor([1]))).toThrow(thrown('ERR_SHAPE', /a: expected square matrices/));
    expect(() => luSolve(tensor([[1]]), tensor([1], { dtype: 'float64' }) as never)).toThrow(
      thrown('ERR_DTYPE', /b: /),
    );
    expect(() => qr(tensor([1, 2]))).toThrow(thrown('ERR_SHAPE', /a: expected \[rows, cols\]/));
    expect(() => svd(tensor([[1]], { dtype: 'int32' }) as never)).toThrow(thrown('ERR_DTYPE', /a: /));
    expect(() => qr(wide, { overwrite: true } as never)).toThrow(thrown('ERR_ARGUMENT', /options\.overwrite/));
  });

  it('reject where their input failed', async () => {
    const poisoned = cholesky(tensor([[-1]]), { strict: true }).factor;
    for (const made of [qr(poisoned).q, eigh(poisoned).values, svd(poisoned).s, luSolve(poisoned, tensor([1])).x]) {
      await expect(made.data()).rejects.toEqual(thrown('ERR_VALUE', /not positive definite/));
    }
  });
});
