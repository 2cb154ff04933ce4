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
