// Metrics as their formulas read, one user at a time, in float64. `list`: recommended items, best first. `test`: the
// user's test items and their values.

export type Gain = (value: number) => number;
export const gains = { binary: () => 1, linear: (v: number) => v, exponential: (v: number) => 2 ** v - 1 };

const hits = (list: number[], test: Map<number, number>, k: number) => list.slice(0, k).map((i) => test.has(i));
const sum = (values: number[]) => values.reduce((a, b) => a + b, 0);
export const mean = (values: number[]) => {
  const defined = values.filter((v) => !Number.isNaN(v));
  return defined.length ? sum(defined) / defined.length : Number.NaN;
};

export function precision(list: number[], test: Map<number, number>, k: number) {
  return hits(list, test, k).filter(Boolean).length / k;
}
export function recall(list: number[], test: Map<number, number>, k: number) {
  return hits(list, test, k).filter(Boolean).length / test.size;
}
export function f1(list: number[], test: Map<number, number>, k: number) {
  const [p, r] = [precision(list, test, k), recall(list, test, k)];
  return p + r > 0 ? (2 * p * r) / (p + r) : 0;
}
export function hitRate(list: number[], test: Map<number, number>, k: number) {
  return hits(list, test, k).some(Boolean) ? 1 : 0;
}
export function ndcg(list: number[], test: Map<number, number>, k: number, gain: Gain = gains.binary) {
  const dcg = (values: number[]) => sum(values.slice(0, k).map((g, r) => g / Math.log2(r + 2)));
  const ideal = dcg([...test.values()].map(gain).sort((a, b) => b - a));
  return ideal > 0 ? dcg(list.map((i) => (test.has(i) ? gain(test.get(i)!) : 0))) / ideal : 0;
}
export function map(list: number[], test: Map<number, number>, k: number) {
  const precisions = hits(list, test, k).map((hit, r) => (hit ? precision(list, test, r + 1) : 0));
  return sum(precisions) / Math.min(k, test.size);
}
export function mrr(list: number[], test: Map<number, number>, k: number) {
  const first = hits(list, test, k).indexOf(true);
  return first < 0 ? 0 : 1 / (first + 1);
}

/** Every pair of a test item and another candidate. */
export function auc(candidates: number[], score: (item: number) => number, test: Map<number, number>) {
  const won: number[] = [];
  for (const a of candidates.filter((i) => test.has(i)))
    for (const b of candidates.filter((i) => !test.has(i))) won.push((Math.sign(score(a) - score(b)) + 1) / 2);
  return won.length ? sum(won) / won.length : Number.NaN;
}

export function coverage(lists: number[][], k: number, items: number) {
  return new Set(lists.flatMap((l) => l.slice(0, k))).size / items;
}
/** Half the relative mean absolute difference over all pairs of items. */
export function gini(lists: number[][], k: number, items: number) {
  const counts = new Array<number>(items).fill(0);
  for (const l of lists) for (const i of l.slice(0, k)) counts[i]!++;
  return sum(counts.flatMap((a) => counts.map((b) => Math.abs(a - b)))) / (2 * items * sum(counts));
}
/** `train[u]`: the items of user u. */
export function novelty(list: number[], train: Set<number>[], k: number) {
  const bits = (i: number) => -Math.log2(Math.max(1, train.filter((t) => t.has(i)).length) / train.length);
  return mean(list.slice(0, k).map(bits));
}
export function diversity(list: number[], vectors: number[][], k: number) {
  const dot = (a: number[], b: number[]) => sum(a.map((x, f) => x * b[f]!));
  const cosine = (a: number[], b: number[]) => dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b)) || 0;
  const items = list.slice(0, k);
  return 1 - mean(items.flatMap((a, x) => items.slice(x + 1).map((b) => cosine(vectors[a]!, vectors[b]!))));
}
