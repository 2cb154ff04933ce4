// The objectives of nonnegative matrix factorization and their gradients, by the formulas of lib/models/nmf.ts, float64.

export interface ReferenceOptions {
  objective: 'frobenius' | 'kl';
  over: 'all' | 'observed';
  regularization: number;
  regularizationForm: 'constant' | 'perEntry';
}

type Matrix = readonly (readonly number[])[];

const dot = (a: readonly number[], b: readonly number[]) => a.reduce((sum, x, k) => sum + x * b[k]!, 0);
const entries = (row: readonly number[]) => row.filter((x) => x !== 0).length;

const lambda = (row: readonly number[], o: ReferenceOptions) =>
  o.regularization * (o.regularizationForm === 'perEntry' ? entries(row) : 1);

/** One side's ½ Σ λ |row|². `x`: the interactions, with that side as rows. */
const penalty = (x: Matrix, factors: Matrix, o: ReferenceOptions) =>
  factors.reduce((sum, row, r) => sum + 0.5 * lambda(x[r]!, o) * dot(row, row), 0);

export function objective(x: Matrix, w: Matrix, h: Matrix, o: ReferenceOptions): number {
  let sum = 0;
  for (const [u, row] of x.entries()) {
    for (const [i, value] of row.entries()) {
      if (o.over === 'observed' && value === 0) continue;
      const y = dot(w[u]!, h[i]!);
      if (o.objective === 'frobenius') sum += 0.5 * (value - y) ** 2;
      else sum += (value > 0 ? value * Math.log(value / y) : 0) - value + y;
    }
  }
  const columns = x[0]!.map((_, i) => x.map((row) => row[i]!));
  return sum + penalty(x, w, o) + penalty(columns, h, o);
}

/** The gradient of the objective by one row's vector, and the size of its terms, which cancel at a minimum. */
export function gradient(x: readonly number[], w: readonly number[], h: Matrix, o: ReferenceOptions) {
  const cells = h.map((_, i) => i).filter((i) => o.over === 'all' || x[i] !== 0);
  const terms = w.map((wk, k) => {
    let [up, down] = [lambda(x, o) * wk, 0];
    for (const i of cells) {
      const y = dot(w, h[i]!);
      up += o.objective === 'frobenius' ? y * h[i]![k]! : h[i]![k]!;
      down += o.objective === 'frobenius' ? x[i]! * h[i]![k]! : x[i]! > 0 ? (x[i]! / y) * h[i]![k]! : 0;
    }
    return [up, down] as const;
  });
  return { gradient: terms.map(([up, down]) => up - down), size: terms.map(([up, down]) => up + down) };
}

/** How far a row is from the conditions of a minimum (Karush-Kuhn-Tucker): w ≥ 0, gradient ≥ 0, one of them 0. */
export function distanceFromMinimum(
  x: readonly number[],
  w: readonly number[],
  h: Matrix,
  o: ReferenceOptions,
): number {
  const { gradient: g, size } = gradient(x, w, h, o);
  const least = 1e-7 * Math.max(...w, 1e-30);
  return Math.max(
    0,
    ...g.map((gk, k) => (w[k]! > least ? Math.abs(gk) : Math.max(0, -gk)) / Math.max(size[k]!, 1e-30)),
  );
}
