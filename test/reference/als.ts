// Implicit ALS in float64 that reads like the formulas: no fused sums, no blocking, Gaussian elimination.
// Rendle et al. 2022 ('ials') and Hu, Koren, Volinsky 2008 ('hkv'); see ALSOptions.

export interface ReferenceOptions {
  objective: 'ials' | 'hkv';
  unobservedWeight: number;
  alpha: number;
  regularization: number;
  regularizationForm: 'constant' | 'perEntry';
  regularizationExponent: number;
}

/** values[u][i], 0 where nothing was observed. */
export type Dense = readonly (readonly number[])[];

export const transpose = (m: Dense): number[][] => m[0]!.map((_, i) => m.map((row) => row[i]!));
const dot = (a: readonly number[], b: readonly number[]): number => a.reduce((sum, x, i) => sum + x * b[i]!, 0);

/** Weight and target of every cell. */
function cell(value: number, o: ReferenceOptions): { weight: number; target: number }[] {
  const observed = { weight: o.alpha * value, target: 1 };
  const unobserved = { weight: o.unobservedWeight, target: 0 };
  if (value === 0) return [unobserved];
  if (o.objective === 'ials') return [observed, unobserved]; // the observed term, and the cell's part of the sum over all
  return [{ weight: o.unobservedWeight + o.alpha * value, target: 1 }];
}

export function lambda(row: readonly number[], o: ReferenceOptions): number {
  if (o.regularizationForm === 'constant') return o.regularization;
  const entries = row.filter((v) => v !== 0).length;
  return o.regularization * (entries + o.unobservedWeight * row.length) ** o.regularizationExponent;
}

/** The vector that minimises the objective of one row with `fixed` as it is: the normal equations. */
export function solveRow(row: readonly number[], fixed: Dense, o: ReferenceOptions): number[] {
  const f = fixed[0]!.length;
  if (row.every((v) => v === 0)) return new Array(f).fill(0);
  const a = Array.from({ length: f }, (_, r) => Array.from({ length: f }, (_, c) => (r === c ? lambda(row, o) : 0)));
  const b: number[] = new Array(f).fill(0);
  row.forEach((value, i) => {
    const y = fixed[i]!;
    for (const { weight, target } of cell(value, o))
      for (let r = 0; r < f; r++) {
        b[r]! += weight * target * y[r]!;
        for (let c = 0; c < f; c++) a[r]![c]! += weight * y[r]! * y[c]!;
      }
  });
  return eliminate(a, b);
}

export function loss(values: Dense, x: Dense, y: Dense, o: ReferenceOptions): number {
  let sum = 0;
  values.forEach((row, u) => {
    row.forEach((value, i) => {
      for (const { weight, target } of cell(value, o)) sum += weight * (target - dot(x[u]!, y[i]!)) ** 2;
    });
    sum += lambda(row, o) * dot(x[u]!, x[u]!);
  });
  transpose(values).forEach((column, i) => {
    sum += lambda(column, o) * dot(y[i]!, y[i]!);
  });
  return sum;
}

export function eliminate(a: number[][], b: number[]): number[] {
  const n = b.length;
  const m = a.map((row, i) => [...row, b[i]!]);
  for (let c = 0; c < n; c++) {
    let pivot = c;
    for (let r = c + 1; r < n; r++) if (Math.abs(m[r]![c]!) > Math.abs(m[pivot]![c]!)) pivot = r;
    [m[c], m[pivot]] = [m[pivot]!, m[c]!];
    for (let r = 0; r < n; r++) {
      if (r === c) continue;
      const scale = m[r]![c]! / m[c]![c]!;
      for (let k = c; k <= n; k++) m[r]![k]! -= scale * m[c]![k]!;
    }
  }
  return m.map((row, i) => row[n]! / row[i]!);
}
