// Multi-head attention with projections by its formula, in float64 (Vaswani et al. 2017, 3.2.2), with PyTorch's parameters.
import { attention, type ReferenceOptions } from './attention.js';

type Matrix = number[][];

/** Each of the first three has its own rows of `in_proj_weight`, or is `q_proj_weight`, `k_proj_weight`, `v_proj_weight`. */
export interface LayerWeights {
  q: Matrix;
  k: Matrix;
  v: Matrix;
  out: Matrix;
  /** Biases of q, k, v and out; zeros for a layer without. */
  biases: Matrix;
}

/** y = W x + b of every row x. */
const linear = (rows: Matrix, weight: Matrix, bias: number[]): Matrix =>
  rows.map((x) => weight.map((w, i) => w.reduce((sum, wij, j) => sum + wij * x[j]!, bias[i]!)));

/** Head h has the columns [h D, (h + 1) D). */
const headsOf = (rows: Matrix, heads: number): Matrix[] => {
  const size = rows[0]!.length / heads;
  return Array.from({ length: heads }, (_, h) => rows.map((row) => row.slice(h * size, (h + 1) * size)));
};

/** Inputs [batch][position][column]. */
export function multiHeadAttention(
  query: Matrix[],
  key: Matrix[],
  value: Matrix[],
  { q, k, v, out, biases: [bq, bk, bv, bOut] }: LayerWeights,
  heads: number,
  options: ReferenceOptions = {},
): Matrix[] {
  const projected = {
    q: query.map((x) => headsOf(linear(x, q, bq!), heads)),
    k: key.map((x) => headsOf(linear(x, k, bk!), heads)),
    v: value.map((x) => headsOf(linear(x, v, bv!), heads)),
  };
  return attention(projected, options).map((ofSequence) => {
    const side = ofSequence[0]!.map((_, i) => ofSequence.flatMap((head) => head[i]!));
    return linear(side, out, bOut!);
  });
}
