import { Ids } from '../../lib/data/ids.js';
import { CsrMatrix, tensor } from '../../lib/index.js';
import type { Scorer } from '../../lib/models/recommender.js';

/** One map from item to value for each user. */
export type Rows = Map<number, number>[];

export async function matrix(rows: Rows, items: number): Promise<CsrMatrix> {
  const cells = rows.flatMap((row, u) => [...row].map(([i, v]) => [u, i, v] as const));
  return CsrMatrix.fromCoo(
    Int32Array.from(cells, (c) => c[0]),
    Int32Array.from(cells, (c) => c[1]),
    Float32Array.from(cells, (c) => c[2]),
    { shape: [rows.length, items] },
  );
}

/** Items that `seen` lacks, by falling score, then by id. */
export function order(scores: number[], seen: Map<number, number>): number[] {
  return scores
    .map((score, item) => ({ score, item }))
    .filter(({ item }) => !seen.has(item))
    .sort((a, b) => b.score - a.score || a.item - b.item)
    .map(({ item }) => item);
}

/** A model whose score of item i for user u is scores[u][i]. */
export function scorer(scores: number[][], items = scores[0]!.length): Scorer<number, number> {
  return {
    users: Ids.range(scores.length),
    items: Ids.range(items),
    async topKRows(rows, k, filter = {}) {
      const ptr = await filter.seen?.indptr.data();
      const ids = await filter.seen?.indices.data();
      const best = new Int32Array(rows.length * k).fill(-1);
      const values = new Float32Array(rows.length * k).fill(Number.NaN);
      rows.forEach((u, q) => {
        const row = filter.seenRows ? filter.seenRows[q]! : u;
        const seen = ptr && ids ? [...ids.subarray(Number(ptr[row]), Number(ptr[row + 1]))] : [];
        const list = order(scores[u]!, new Map(seen.map((i) => [i, 1]))).slice(0, k);
        best.set(list, q * k);
        values.set(
          list.map((i) => scores[u]![i]!),
          q * k,
        );
      });
      return { ids: best, scores: values };
    },
    async scorePairs(users, pairs) {
      return Float32Array.from(users, (u, j) => scores[u]![pairs[j]!]!);
    },
  };
}

/** The same model with rankCounts, as models of factors have it. */
export function counting(scores: number[][]): Scorer<number, number> {
  const model = scorer(scores);
  return {
    ...model,
    async rankCounts(rows, positives, filter = {}) {
      const [ptr, ids] = await Promise.all([positives.indptr.data(), positives.indices.data()]);
      const all = await model.topKRows(rows, model.items.size, filter);
      const above: number[] = [];
      const equal: number[] = [];
      rows.forEach((u, q) => {
        const own = ids.subarray(Number(ptr[q]), Number(ptr[q + 1]));
        const row = all.ids.subarray(q * model.items.size, (q + 1) * model.items.size);
        const others = [...row].filter((i) => i >= 0 && !own.includes(i)).map((i) => scores[u]![i]!);
        for (const item of own) {
          above.push(others.filter((s) => s > scores[u]![item]!).length);
          equal.push(others.filter((s) => s === scores[u]![item]!).length);
        }
      });
      return { above: tensor(above, { dtype: 'int32' }), equal: tensor(equal, { dtype: 'int32' }) };
    },
  };
}
