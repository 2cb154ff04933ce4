import type { CsrMatrix, Tensor } from '../../lib/index.js';

/** A matrix as rows of plain numbers. */
export async function nested(t: Tensor): Promise<number[][]> {
  const flat = Array.from((await t.data()) as Float32Array);
  const cols = t.shape[1]!;
  return Array.from({ length: t.shape[0]! }, (_, r) => flat.slice(r * cols, (r + 1) * cols));
}

/** A sparse matrix with its zeros. */
export async function dense(m: CsrMatrix): Promise<number[][]> {
  const [indptr, indices, values] = [await m.indptr.data(), await m.indices.data(), await m.values.data()];
  const out = Array.from({ length: m.shape[0] }, () => new Array<number>(m.shape[1]).fill(0));
  for (let r = 0; r < m.shape[0]; r++)
    for (let i = Number(indptr[r]); i < Number(indptr[r + 1]); i++) out[r]![indices[i]!] = values[i]!;
  return out;
}

export const transpose = (m: readonly (readonly number[])[]): number[][] =>
  m[0]!.map((_, c) => m.map((row) => row[c]!));

/** The largest difference, against the largest value. */
export function difference(a: readonly number[][], b: readonly number[][]): number {
  const size = Math.max(...b.flat().map(Math.abs));
  return Math.max(...a.flatMap((row, r) => row.map((x, c) => Math.abs(x - b[r]![c]!)))) / size;
}
