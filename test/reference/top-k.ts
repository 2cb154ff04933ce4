// Exact top-k in float64, by sorting everything: what topK, FlatIndex and the models must agree with.

export type ReferenceMetric = 'innerProduct' | 'cosine' | 'l2';

const dot = (a: ArrayLike<number>, b: ArrayLike<number>): number => {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i]! * b[i]!;
  return sum;
};

/** Inner product, cosine (0 where a vector is zero), or squared distance. */
export function score(q: ArrayLike<number>, x: ArrayLike<number>, metric: ReferenceMetric): number {
  if (metric === 'innerProduct') return dot(q, x);
  if (metric === 'l2') return Array.from(q).reduce((sum, a, i) => sum + (a - x[i]!) ** 2, 0);
  const lengths = Math.sqrt(dot(q, q)) * Math.sqrt(dot(x, x));
  return lengths === 0 ? 0 : dot(q, x) / lengths;
}

/** Every allowed row, best first, ties by lower row. */
export function ranking(
  q: ArrayLike<number>,
  items: readonly ArrayLike<number>[],
  metric: ReferenceMetric,
  allowed: (row: number) => boolean = () => true,
): { row: number; score: number }[] {
  const sign = metric === 'l2' ? 1 : -1;
  return items
    .map((x, row) => ({ row, score: score(q, x, metric) }))
    .filter(({ row }) => allowed(row))
    .sort((a, b) => sign * (a.score - b.score) || a.row - b.row);
}
