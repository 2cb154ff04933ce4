// Checks top-k answers against a float64 scan, for a few queries.

const epsilon = 2 ** -24;

/**
 * Throws unless each of the first queries' k ids are distinct and every one of them scores, in float64, at least the
 * k-th best score less what float32 may lose; and, when given, scores agree within that.
 */
export function checkIds({ items, queries, n, d, q, k }, ids, scores) {
  if (ids.length !== q * k) throw new Error(`expected ${q * k} ids but received ${ids.length}`);
  for (const query of new Set([0, Math.floor(q / 2), q - 1])) {
    const vector = queries.subarray(query * d, (query + 1) * d);
    const exact = new Float64Array(n);
    let magnitude = 0;
    for (let i = 0; i < n; ++i) {
      let sum = 0,
        absolute = 0;
      for (let j = 0; j < d; ++j) {
        const product = items[i * d + j] * vector[j];
        sum += product;
        absolute += Math.abs(product);
      }
      exact[i] = sum;
      magnitude = Math.max(magnitude, absolute);
    }
    const tolerance = 2 * d * epsilon * magnitude;
    const worst = Float64Array.from(exact).sort()[n - k];
    const found = ids.subarray(query * k, (query + 1) * k);
    if (new Set(found).size !== k) throw new Error(`query ${query}: ids repeat: ${found}`);
    found.forEach((id, rank) => {
      if (!(exact[id] >= worst - tolerance))
        throw new Error(`query ${query}: item ${id} scores ${exact[id]}, below ${worst}`);
      if (scores && !(Math.abs(scores[query * k + rank] - exact[id]) <= tolerance))
        throw new Error(`query ${query}: item ${id} scores ${exact[id]} but ${scores[query * k + rank]} was returned`);
    });
  }
}
