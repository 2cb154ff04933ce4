import { deviceName, finite, integer, knownOptions, oneOf } from '../check.js';
import { TopknotError } from '../errors.js';

/**
 * Options of the neighbour models. With rows the things compared (items by their users, or users by their items), v the
 * value of row r at column t, N rows, n_t of them with an entry at t, L_r the sum of row r and L its mean over rows, the
 * similarity of row c to row r is w_r · w_c / (|w_r|^2(1-a) |w_c|^2a + shrinkage), a being the asymmetry, where w is
 * - 'cosine': v
 * - 'tfidf': v · (ln((1 + N) / (1 + n_t)) + 1)
 * - 'bm25': ln(1 + (N - n_t + 0.5) / (n_t + 0.5)) · v · (k1 + 1) / (v + k1 · (1 - b + b · L_r / L)) (Robertson, Zaragoza 2009)
 */
export interface NeighbourOptions {
  /** How many nearest neighbours are kept of each, those of similarity above 0; 100 unless given. */
  neighbours?: number;
  /** 'cosine' unless given. */
  similarity?: 'cosine' | 'tfidf' | 'bm25';
  /** At least 0: draws similarities that rest on little towards 0; 0 unless given. */
  shrinkage?: number;
  /**
   * 0 to 1; 0.5 unless given, which is the cosine. Above it neighbours with many interactions count for less. Aiolli,
   * "Efficient top-N recommendation for very large scale binary rated datasets", RecSys 2013.
   */
  asymmetry?: number;
  /** For 'bm25': how slowly repetition saturates, from 0; 1.2 unless given. */
  k1?: number;
  /** For 'bm25': how much long rows are discounted, 0 to 1; 0.75 unless given. */
  b?: number;
  /** Where the model computes; 'cpu' unless given: see `device()` for the names, docs/gpu.md for what stays on the CPU. */
  device?: string;
}

/** Checked, defaults filled in. @internal */
export function checkNeighbourOptions(
  options: NeighbourOptions,
  others: readonly string[] = [],
): Required<NeighbourOptions> {
  knownOptions(options, ['neighbours', 'similarity', 'shrinkage', 'asymmetry', 'k1', 'b', 'device', ...others]);
  return {
    neighbours: integer('neighbours', options.neighbours ?? 100, 1),
    similarity: oneOf('similarity', options.similarity ?? 'cosine', ['cosine', 'tfidf', 'bm25'] as const),
    shrinkage: finite('shrinkage', options.shrinkage ?? 0, 0),
    asymmetry: share('asymmetry', options.asymmetry ?? 0.5),
    k1: finite('k1', options.k1 ?? 1.2, 0),
    b: share('b', options.b ?? 0.75),
    device: deviceName(options.device ?? 'cpu'),
  };
}

function share(name: string, value: unknown): number {
  const x = finite(name, value, 0);
  if (x > 1) throw new TopknotError('ERR_RANGE', `${name}: expected 0 to 1 but received ${x}`);
  return x;
}
