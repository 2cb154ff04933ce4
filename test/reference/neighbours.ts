// Neighbours of the rows of a dense matrix, by the formulas of lib/models/neighbour-options.ts, in float64.

export interface ReferenceOptions {
  neighbours: number;
  similarity: 'cosine' | 'tfidf' | 'bm25';
  shrinkage: number;
  asymmetry: number;
  k1: number;
  b: number;
}

const sum = (values: readonly number[]) => values.reduce((a, b) => a + b, 0);
const dot = (a: readonly number[], b: readonly number[]) => sum(a.map((x, i) => x * b[i]!));

/** What turns a row into its weights, learned from all rows. */
export function weigher(rows: readonly (readonly number[])[], o: ReferenceOptions) {
  const count = rows.length;
  const frequency = rows[0]!.map((_, t) => rows.filter((row) => row[t]! > 0).length);
  const meanLength = sum(rows.map(sum)) / count;
  return (row: readonly number[]): number[] =>
    row.map((v, t) => {
      const n = frequency[t]!;
      if (o.similarity === 'cosine') return v;
      if (o.similarity === 'tfidf') return v * (Math.log((1 + count) / (1 + n)) + 1);
      const idf = Math.log(1 + (count - n + 0.5) / (n + 0.5));
      const saturation = o.k1 * (1 - o.b + (o.b * sum(row)) / meanLength);
      return v > 0 ? (idf * v * (o.k1 + 1)) / (v + saturation) : 0;
    });
}

/** Of b to a. */
export function similarity(a: readonly number[], b: readonly number[], o: ReferenceOptions): number {
  const inner = dot(a, b);
  return inner > 0 ? inner / (dot(a, a) ** (1 - o.asymmetry) * dot(b, b) ** o.asymmetry + o.shrinkage) : 0;
}

/** Row r: the similarities of r's nearest rows, 0 for all others. `own`: the row that is r itself. */
export function nearest(
  query: readonly number[],
  rows: readonly (readonly number[])[],
  own: number | undefined,
  o: ReferenceOptions,
): number[] {
  const weigh = weigher(rows, o);
  const all = rows.map((row, r) => (r === own ? 0 : similarity(weigh(query), weigh(row), o)));
  const order = all.map((s, r) => ({ s, r })).sort((x, y) => y.s - x.s || x.r - y.r);
  const kept = new Set(order.slice(0, o.neighbours).map(({ r }) => r));
  return all.map((s, r) => (kept.has(r) ? s : 0));
}

/** The scores of all items for a history: Σ_i history_i s_ji over the neighbours i of each item j. */
export function itemScores(
  history: readonly number[],
  items: readonly (readonly number[])[],
  o: ReferenceOptions & { normalize: boolean },
): number[] {
  return items.map((item, j) => {
    const near = nearest(item, items, j, o);
    const total = sum(near);
    return o.normalize && total > 0 ? dot(history, near) / total : dot(history, near);
  });
}

/** The scores of all items: Σ_v s_v v_j over the nearest users v. */
export function userScores(
  history: readonly number[],
  users: readonly (readonly number[])[],
  own: number | undefined,
  o: ReferenceOptions,
): number[] {
  const near = nearest(history, users, own, o);
  return history.map((_, j) => sum(users.map((user, v) => near[v]! * user[j]!)));
}
