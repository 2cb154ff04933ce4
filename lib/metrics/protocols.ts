import { CsrMatrix } from '../csr.js';
import { expected } from '../errors.js';
import { type JobOptions, runJob } from '../job.js';
import type { RankCounts, RowFilter, Scorer } from '../models/recommender.js';
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
  /** Whether it matters which items fill the ranks where no test item stands. */
  fillers: boolean;
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

function candidatesPerUser(ranking: Ranking, users: number): number {
  const { protocol, test, k } = ranking;
  const relevant = test.nnz / Math.max(1, users);
  if (protocol === 'full') return needsOrder(ranking) ? test.shape[1] : Math.max(k, relevant);
  if ('negatives' in protocol) return protocol.negatives + relevant;
  return protocol.candidates.nnz / Math.max(1, protocol.candidates.shape[0]) + relevant;
}

/** Whether the whole order of a user's items is needed: neither the best k nor counts of what is ahead will do. */
function needsOrder({ model, ties, auc, fillers }: Ranking): boolean {
  return ties === 'against' ? fillers || !model.rankCounts : auc && !model.rankCounts;
}

/** @internal Ranks the candidates of these users. */
export async function rankBlock(ranking: Ranking, users: Int32Array, options: JobOptions): Promise<RankedBlock> {
  const { model, train, test, protocol } = ranking;
  if (protocol === 'full') return rankAllItems(ranking, users, options);
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

async function rankAllItems(ranking: Ranking, users: Int32Array, options: JobOptions): Promise<RankedBlock> {
  const { model, train, test, k, ties, auc } = ranking;
  const filter = { seen: train, seenRows: users };
  if (needsOrder(ranking)) {
    const all = await model.topKRows(users, test.shape[1], filter, options);
    const ptr = BigInt64Array.from({ length: users.length + 1 }, (_, i) => BigInt(i * test.shape[1]));
    return rank(ranking, users, ptr, all.ids, all.scores, options);
  }
  const counted = auc || ties === 'against' ? await rankByCounts(ranking, users, filter, options) : undefined;
  if (counted && ties === 'against') return counted;
  const best = await model.topKRows(users, k, filter, options);
  const lists = tensor(best.ids, { dtype: 'int32', shape: [users.length, k] });
  if (!counted) return { lists };
  counted.lists.dispose();
  return { ...counted, lists };
}

/** With ties against the test items, and -1 where none of them stands. */
async function rankByCounts(
  { model, train, test, k }: Ranking,
  users: Int32Array,
  filter: RowFilter,
  options: JobOptions,
): Promise<RankedBlock> {
  using positives = new CsrMatrix(
    await runJob('long', options, (control) => native.csrTakeRows(control, test.handles, users)),
  );
  const counts = (await model.rankCounts?.(users, positives, filter, options)) as RankCounts;
  using above = counts.above;
  using equal = counts.equal;
  const ranked = await runJob('long', options, (control) =>
    native.rankByCounts(control, positives.handles, above.handle, equal.handle, train.handles, users, k),
  );
  return { lists: new Tensor<'int32'>(ranked.ids), auc: ranked.auc as Float64Array };
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
