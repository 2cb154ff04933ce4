// The singular value decomposition of a small dense matrix by one-sided Jacobi rotations (Hestenes 1958), in float64.

export interface ReferenceSvd {
  /** Falling. */
  s: number[];
  /** v[j]: the right singular vector of s[j]. */
  v: number[][];
}

const dot = (a: readonly number[], b: readonly number[]) => a.reduce((sum, x, i) => sum + x * b[i]!, 0);

export function svd(matrix: readonly (readonly number[])[]): ReferenceSvd {
  const columns = matrix[0]!.map((_, c) => matrix.map((row) => row[c]!));
  if (columns.length > matrix.length) {
    // Of the transpose, whose right vectors u give v = Aᵀu / σ.
    const { s, v: u } = svd(columns);
    return { s, v: u.map((uj, j) => columns.map((column) => dot(column, uj) / s[j]!)) };
  }
  const v = columns.map((_, c) => columns.map((_, r) => (r === c ? 1 : 0)));
  for (let sweep = 0; sweep < 60; sweep++) {
    let largest = 0;
    for (let p = 0; p < columns.length; p++) {
      for (let q = p + 1; q < columns.length; q++) {
        const [a, b, c] = [dot(columns[p]!, columns[p]!), dot(columns[q]!, columns[q]!), dot(columns[p]!, columns[q]!)];
        if (c * c <= 1e-30 * a * b) continue;
        largest = Math.max(largest, Math.abs(c) / Math.sqrt(a * b));
        const zeta = (b - a) / (2 * c);
        const t = (zeta < 0 ? -1 : 1) / (Math.abs(zeta) + Math.hypot(1, zeta));
        const [cos, sin] = [1 / Math.hypot(1, t), t / Math.hypot(1, t)];
        for (const m of [columns, v]) {
          const [x, y] = [m[p]!, m[q]!];
          m[p] = x.map((value, i) => cos * value - sin * y[i]!);
          m[q] = x.map((value, i) => sin * value + cos * y[i]!);
        }
      }
    }
    if (largest < 1e-14) break;
  }
  const order = columns.map((column, j) => ({ s: Math.sqrt(dot(column, column)), j })).sort((x, y) => y.s - x.s);
  return { s: order.map(({ s }) => s), v: order.map(({ j }) => v[j]!) };
}
