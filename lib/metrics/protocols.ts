import type { CsrMatrix } from '../csr.js';
import { expected } from '../errors.js';
import { type JobOptions, runJob } from '../job.js';
import type { Scorer } from '../models/recommender.js';
import { native } from '../native.js';
import { Tensor, tensor } from '../tensor.js';

/**
 * What a user's test items are ranked against.
 *
 * - `'full'`: every item that the user does not have in train.
 * - `{ negatives, seed }`: that many items drawn uniformly from those outside the user's train and test items. The
 *   draw depends on the seed and the user's row alone.
 * - `{ candidates }`: the items of the user's row in this matrix (its values are ignored), users × items.
 *
 * The last two rank all of the user's test items and the others in one list. They are cheaper and give higher numbers
 * that may order models differently: Krichene and Rendle, On sampled metrics for item recommendation, KDD 2020.
 */
export type Protocol = 'full' | { negatives: number; seed?: number } | { candidates: CsrMatrix };

/** Who comes first among equal scores: the item with the lower row, or, pessimistically, the one that is no test item. */
export type Ties = 'id' | 'against';

/** @internal The lists of some users, and their AUC where it was asked for. */
export interface RankedBlock {
  lists: Tensor<'int32'>;
  auc?: Float64Array;
}

/** @internal What a protocol ranks and how. */
export interface Ranking {
  model: Scorer;
  train: CsrMatrix;
  test: CsrMatrix;
  protocol: Protocol;
  /** List length. */
  k: number;
  ties: Ties;
  auc: boolean;
}

/** Scores handed over at once, at most about: what a block costs in memory, and the copying on the JavaScript thread. */
const scoresPerBlock = 1 << 18;
const usersPerBlock = 4096;

/** @internal */
export function checkProtocol(protocol: Protocol): void {
  if (protocol === 'full') return;
  if (typeof protocol === 'object' && protocol !== null) {
    if ('candidates' in protocol && protocol.candidates) return;
    if ('negatives' in protocol) {
      if (!Number.isSafeInteger(protocol.negatives) || protocol.negatives < 1)
        expected('protocol.negatives', 'an integer of 1 or more', protocol.negatives);
      const seed = protocol.seed ?? 0;
      if (!Number.isSafeInteger(seed) || seed < 0) expected('protocol.seed', 'an integer of 0 or more', seed);
      return;
    }
  }
  expected('protocol', "'full', { negatives, seed } or { candidates }", protocol);
}

/** @internal How many users are ranked in one call of the model. */
export function blockSize(ranking: Ranking, users: number): number {
  return Math.max(1, Math.min(usersPerBlock, Math.floor(scoresPerBlock / candidatesPerUser(ranking, users))));
}

function candidatesPerUser({ protocol, test, k, ties, auc }: Ranking, users: number): number {
  const relevant = test.nnz / Math.max(1, users);
  if (protocol === 'full') return auc || ties === 'against' ? test.shape[1] : k;
  if ('negatives' in protocol) return protocol.negatives + relevant;
  return protocol.candidates.nnz / Math.max(1, protocol.candidates.shape[0]) + relevant;
}

/** @internal Ranks the candidates of these users. */
export async function rankBlock(ranking: Ranking, users: Int32Array, options: JobOptions): Promise<RankedBlock> {
  const { model, train, test, protocol, k, ties, auc } = ranking;
  if (protocol === 'full') {
    const all = auc || ties === 'against';
    const filter = { seen: train, seenRows: users };
    const best = await model.topKRows(users, all ? test.shape[1] : k, filter, options);
    if (!all) return { lists: tensor(best.ids, { dtype: 'int32', shape: [users.length, k] }) };
    const ptr = BigInt64Array.from({ length: users.length + 1 }, (_, i) => BigInt(i * test.shape[1]));
    return rank(ranking, users, ptr, best.ids, best.scores, options);
  }
  const pairs = await runJob('long', options, (control) =>
    'negatives' in protocol
      ? native.sampleCandidates(control, test.handles, train.handles, users, protocol.negatives, protocol.seed ?? 0)
      : native.givenCandidates(control, test.handles, protocol.candidates.handles, users),
  );
  const items = pairs.items as Int32Array;
  const scores = await model.scorePairs(pairs.users as Int32Array, items, options);
  const ranked = await rank(ranking, users, pairs.ptr, items, scores, options);
  native.dispose(pairs.ptr);
  return ranked;
}

async function rank(
  { test, k, ties }: Ranking,
  users: Int32Array,
  ptr: Parameters<typeof native.rankCandidates>[1],
  items: Int32Array,
  scores: Float32Array,
  options: JobOptions,
): Promise<RankedBlock> {
  const ranked = await runJob('long', options, (control) =>
    native.rankCandidates(control, ptr, items, scores, users, test.handles, k, ties),
  );
  return { lists: new Tensor<'int32'>(ranked.ids), auc: ranked.auc as Float64Array };
}
