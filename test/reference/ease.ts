// EASE by its formula, in float64: P = (XᵀX + λ I)⁻¹ by Gauss-Jordan, B = I - P diag(P)⁻¹.

/** The inverse by Gauss-Jordan elimination with row exchanges. */
export function inverse(matrix: readonly (readonly number[])[]): number[][] {
  const n = matrix.length;
  const a = matrix.map((row, r) => [...row, ...row.map((_, c) => (c === r ? 1 : 0))]);
  for (let k = 0; k < n; k++) {
    let pivot = k;
    for (let r = k; r < n; r++) if (Math.abs(a[r]![k]!) > Math.abs(a[pivot]![k]!)) pivot = r;
    [a[k], a[pivot]] = [a[pivot]!, a[k]!];
    const scale = a[k]![k]!;
    a[k] = a[k]!.map((x) => x / scale);
    for (let r = 0; r < n; r++) {
      if (r === k) continue;
      const factor = a[r]![k]!;
      a[r] = a[r]!.map((x, c) => x - factor * a[k]![c]!);
    }
  }
  return a.map((row) => row.slice(n));
}

export function ease(users: readonly (readonly number[])[], lambda: number): number[][] {
  const n = users[0]!.length;
  const gram = Array.from({ length: n }, (_, i) =>
    Array.from({ length: n }, (_, j) => users.reduce((sum, x) => sum + x[i]! * x[j]!, i === j ? lambda : 0)),
  );
  const p = inverse(gram);
  return p.map((row, i) => row.map((x, j) => (i === j ? 0 : -x / p[j]![j]!)));
}

/** Each column's k largest weights by magnitude. */
export function truncate(b: readonly (readonly number[])[], k: number): number[][] {
  const kept = b[0]!.map((_, j) => {
    const order = b.map((row, i) => ({ i, size: Math.abs(row[j]!) })).filter(({ i }) => i !== j);
    return new Set(
      order
        .sort((x, y) => y.size - x.size)
        .slice(0, k)
        .map(({ i }) => i),
    );
  });
  return b.map((row, i) => row.map((x, j) => (kept[j]!.has(i) ? x : 0)));
}
