// Dense algebra as it is defined, in float64. A matrix is an array of rows.

export type Matrix = number[][];

export const transpose = (a: Matrix): Matrix => (a[0] ?? []).map((_, j) => a.map((row) => row[j]!));

export const multiply = (a: Matrix, b: Matrix): Matrix =>
  a.map((row) => transpose(b).map((col) => row.reduce((sum, x, k) => sum + x * col[k]!, 0)));

export const subtract = (a: Matrix, b: Matrix): Matrix => a.map((row, i) => row.map((x, j) => x - b[i]![j]!));

export const identity = (n: number): Matrix =>
  Array.from({ length: n }, (_, i) => Array.from({ length: n }, (_, j) => Number(i === j)));

/** The square root of the sum of squares (Frobenius). */
export const norm = (a: Matrix): number => Math.sqrt(a.flat().reduce((sum, x) => sum + x * x, 0));

/** ‖a x - b‖ / (‖a‖ ‖x‖ + ‖b‖): how well x solves a x = b. */
export const residual = (a: Matrix, x: Matrix, b: Matrix): number =>
  norm(subtract(multiply(a, x), b)) / (norm(a) * norm(x) + norm(b) || 1);

/** ‖qᵀq - I‖ / √columns: how far the columns of q are from orthonormal. */
export const orthogonality = (q: Matrix): number => {
  const gram = multiply(transpose(q), q);
  return norm(subtract(gram, identity(gram.length))) / Math.sqrt(gram.length || 1);
};

/** L with a = L Lᵀ, column by column; undefined where a pivot is not positive. */
export function cholesky(a: Matrix): Matrix | undefined {
  const l = a.map((row) => row.map(() => 0));
  for (let j = 0; j < a.length; ++j) {
    for (let i = j; i < a.length; ++i) {
      let sum = a[i]![j]!;
      for (let k = 0; k < j; ++k) sum -= l[i]![k]! * l[j]![k]!;
      if (i === j && !(sum > 0)) return undefined;
      l[i]![j] = i === j ? Math.sqrt(sum) : sum / l[j]![j]!;
    }
  }
  return l;
}

/** Cuts a flat batch into matrices. */
export const matricesOf = (flat: ArrayLike<number>, rows: number, cols: number): Matrix[] =>
  Array.from({ length: flat.length / (rows * cols || 1) }, (_, m) =>
    Array.from({ length: rows }, (_, i) => Array.from({ length: cols }, (_, j) => flat[(m * rows + i) * cols + j]!)),
  );
