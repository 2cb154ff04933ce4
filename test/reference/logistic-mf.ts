// Logistic matrix factorization (Johnson 2014) in float64, as backend/logistic_mf_args.h writes it.
import { RandomStream } from './random.js';

export interface ReferenceOptions {
  factors: number;
  iterations: number;
  learningRate: number;
  regularization: number;
  alpha: number;
  negatives: number;
  initStd: number;
  seed: number;
}

/** One row's vector and, last, its bias. */
export type Row = number[];
/** A term of a row's objective: a row of the other side with its weight α r, 0 for a negative. */
interface Term {
  other: Row;
  weight: number;
}

export const score = (a: Row, b: Row): number =>
  a.slice(0, -1).reduce((sum, v, k) => sum + v * b[k]!, 0) + a.at(-1)! + b.at(-1)!;

/** Σ α r s - (1 + α r) ln(1 + e^s) - λ/2 (|x|² + b²). */
export function objective(row: Row, terms: readonly Term[], lambda: number): number {
  const likelihood = terms.reduce((sum, { other, weight }) => {
    const s = score(row, other);
    return sum + weight * s - (1 + weight) * Math.log(1 + Math.exp(s));
  }, 0);
  return likelihood - (lambda / 2) * row.reduce((sum, v) => sum + v * v, 0);
}

export function gradient(row: Row, terms: readonly Term[], lambda: number): Row {
  const out = row.map((v) => -lambda * v);
  for (const { other, weight } of terms) {
    const slope = weight - (1 + weight) / (1 + Math.exp(-score(row, other)));
    for (let k = 0; k + 1 < row.length; k++) out[k]! += slope * other[k]!;
    out[row.length - 1]! += slope;
  }
  return out;
}

/** `values[u][i]`, 0 where nothing was observed. */
export function logisticMf(values: readonly (readonly number[])[], o: ReferenceOptions): { x: Row[]; y: Row[] } {
  const start = (key: bigint): Row => {
    const random = new RandomStream(o.seed, key);
    return [...Array.from({ length: o.factors }, () => (o.initStd / Math.sqrt(o.factors)) * random.normal()), 0];
  };
  const x = values.map((_, u) => start(2n ** 40n + BigInt(u)));
  const y = values[0]!.map((_, i) => start(BigInt(i)));
  const columns = values[0]!.map((_, i) => values.map((row) => row[i]!));
  const zeros = (rows: Row[]) => rows.map((row) => row.map(() => 0));
  const [squaredX, squaredY] = [zeros(x), zeros(y)];

  const sweep = (rows: readonly (readonly number[])[], own: Row[], squares: Row[], others: Row[], key: bigint) => {
    rows.forEach((row, u) => {
      const random = new RandomStream(o.seed, key + BigInt(u));
      const terms: Term[] = [];
      for (const [i, value] of row.entries()) if (value) terms.push({ other: others[i]!, weight: o.alpha * value });
      for (let n = o.negatives * Math.max(1, terms.length); n > 0; n--)
        for (let attempt = 0; attempt < 16; attempt++) {
          const j = random.below(row.length);
          if (row[j]) continue;
          terms.push({ other: others[j]!, weight: 0 });
          break;
        }
      gradient(own[u]!, terms, o.regularization).forEach((g, k) => {
        squares[u]![k]! += g * g;
        own[u]![k]! += (o.learningRate * g) / (Math.sqrt(squares[u]![k]!) + 1e-8);
      });
    });
  };
  for (let iteration = 0; iteration < o.iterations; iteration++) {
    sweep(columns, y, squaredY, x, (2n << 60n) | (BigInt(iteration) << 36n));
    sweep(values, x, squaredX, y, (1n << 60n) | (BigInt(iteration) << 36n));
  }
  return { x: x.map((row, u) => (values[u]!.some((v) => v) ? row : row.map(() => 0))), y };
}

/**
 * Folds a row in with the other side `others` as it is, from zero: vector and bias, as the sum of one row for each entry of
 * `own`, (row of the other side, value). Each step takes for an entry its own term and the negatives drawn for it.
 */
export function foldIn(
  own: readonly (readonly [number, number])[],
  others: readonly Row[],
  o: ReferenceOptions,
): Row[] {
  const width = o.factors + 1;
  const parts = own.map(() => new Array<number>(width).fill(0));
  const squares = new Array<number>(width).fill(0);
  const chosen = new Set(own.map(([i]) => i));
  for (let iteration = 0; iteration < o.iterations; iteration++) {
    const random = new RandomStream(o.seed, (3n << 60n) | (BigInt(iteration) << 36n));
    const terms = own.map(([i, value]): Term[] => [{ other: others[i]!, weight: o.alpha * value }]);
    for (const of of terms)
      for (let n = 0; n < o.negatives; n++)
        for (let attempt = 0; attempt < 16; attempt++) {
          const j = random.below(others.length);
          if (chosen.has(j)) continue;
          of.push({ other: others[j]!, weight: 0 });
          break;
        }
    const row = squares.map((_, k) => parts.reduce((sum, part) => sum + part[k]!, 0));
    gradient(row, terms.flat(), o.regularization).forEach((g, k) => {
      squares[k]! += g * g;
    });
    const slopes = terms.map((of) => gradient(row, of, 0));
    for (const [e, part] of parts.entries())
      for (let k = 0; k < width; k++)
        part[k]! += (o.learningRate * (slopes[e]![k]! - o.regularization * part[k]!)) / (Math.sqrt(squares[k]!) + 1e-8);
  }
  return parts;
}
