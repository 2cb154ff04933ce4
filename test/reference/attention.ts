// Attention by its definition, in float64: every score, every weight, one query at a time.

export interface Heads {
  /** [batch][head][position][dim] */
  q: number[][][][];
  k: number[][][][];
  v: number[][][][];
}

export interface ReferenceOptions {
  causal?: boolean;
  /** The farthest keys before and behind a query's own place. */
  window?: readonly [number, number];
  scale?: number;
  /** Whether a key of a sequence may be seen. */
  visible?: (b: number, j: number) => boolean;
  bias?: (b: number, h: number, i: number, j: number) => number;
  /** What dropout multiplies a weight with. */
  kept?: (b: number, h: number, i: number, j: number) => number;
}

const dot = (a: readonly number[], b: readonly number[]): number => a.reduce((sum, x, i) => sum + x * b[i]!, 0);

/** The head of k and v that a head of q reads. */
const shared = (h: number, heads: number, kvHeads: number): number => Math.floor((h * kvHeads) / heads);

/** The weights of query i over all keys: softmax over those that it may see, 0 for the others. */
export function weights({ q, k }: Heads, b: number, h: number, i: number, options: ReferenceOptions): number[] {
  const query = q[b]![h]![i]!;
  const keys = k[b]![shared(h, q[b]!.length, k[b]!.length)]!;
  const place = i + keys.length - q[b]![h]!.length;
  const [before, behind] = options.window ?? [Infinity, Infinity];
  const scores = keys.map((key, j) => {
    const seen = j >= place - before && j <= place + (options.causal ? 0 : behind) && (options.visible?.(b, j) ?? true);
    const scale = options.scale ?? 1 / Math.sqrt(query.length);
    return seen ? scale * dot(query, key) + (options.bias?.(b, h, i, j) ?? 0) : -Infinity;
  });
  const largest = Math.max(...scores);
  if (largest === -Infinity) return scores.map(() => 0);
  const powers = scores.map((s) => Math.exp(s - largest));
  const sum = powers.reduce((x, y) => x + y, 0);
  return powers.map((x) => x / sum);
}

/** out[b][h][i] = Σ_j kept_j weight_j v_j */
export function attention(heads: Heads, options: ReferenceOptions = {}): number[][][][] {
  const { q, k, v } = heads;
  return q.map((ofSequence, b) =>
    ofSequence.map((ofHead, h) =>
      ofHead.map((query, i) => {
        const w = weights(heads, b, h, i, options);
        const values = v[b]![shared(h, ofSequence.length, k[b]!.length)]!;
        return query.map((_, c) =>
          w.reduce((sum, x, j) => sum + x * (options.kept?.(b, h, i, j) ?? 1) * values[j]![c]!, 0),
        );
      }),
    ),
  );
}

/** The gradients of Σ out · outGradient, by their formulas; `bias` is that of every pair: [batch][head][query][key]. */
export function attentionGradients(heads: Heads, outGradient: number[][][][], options: ReferenceOptions = {}) {
  const { q, k, v } = heads;
  const zeros = (x: number[][][][]) => x.map((b) => b.map((h) => h.map((row) => row.map(() => 0))));
  const gradients = { q: zeros(q), k: zeros(k), v: zeros(v), bias: [] as number[][][][] };
  const out = attention(heads, options);
  gradients.bias = q.map((ofSequence, b) =>
    ofSequence.map((ofHead, h) =>
      ofHead.map((query, i) => {
        const g = shared(h, ofSequence.length, k[b]!.length);
        const w = weights(heads, b, h, i, options);
        const dOut = outGradient[b]![h]![i]!;
        const scale = options.scale ?? 1 / Math.sqrt(query.length);
        return w.map((p, j) => {
          const kept = options.kept?.(b, h, i, j) ?? 1;
          const dScore = p * (kept * dot(dOut, v[b]![g]![j]!) - dot(dOut, out[b]![h]![i]!));
          for (let c = 0; c < query.length; c++) {
            gradients.v[b]![g]![j]![c]! += p * kept * dOut[c]!;
            gradients.q[b]![h]![i]![c]! += scale * dScore * k[b]![g]![j]![c]!;
            gradients.k[b]![g]![j]![c]! += scale * dScore * query[c]!;
          }
          return dScore;
        });
      }),
    ),
  );
  return gradients;
}
