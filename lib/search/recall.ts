import type { TopKRows } from '../models/recommender.js';

/**
 * The share of the exact k best, over all queries, that are among what was found; 1 where nothing was to be found.
 * @internal
 */
export function shareFound(found: TopKRows, exact: TopKRows, k: number): number {
  let [hits, wanted] = [0, 0];
  for (let begin = 0; begin < exact.ids.length; begin += k) {
    const best = new Set(exact.ids.subarray(begin, begin + k));
    best.delete(-1);
    wanted += best.size;
    for (const row of found.ids.subarray(begin, begin + k)) hits += best.has(row) ? 1 : 0;
  }
  return wanted === 0 ? 1 : hits / wanted;
}
