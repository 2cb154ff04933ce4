import { checkK, knownOptions } from '../check.js';
import type { CsrHandles } from '../csr.js';
import type { Id } from '../data/ids.js';
import { type JobOptions, runJob } from '../job.js';
import { native } from '../native.js';
import { allowedBits, type ItemFilter, nativeFilter } from '../ops/item-filter.js';
import { type ExplainOptions, type Explanation, explainByHistory } from './explain.js';
import { type HistoryRows, historyMatrix } from './history.js';
import { type FittedLinear, LinearModel, type LinearWeights, weightsOn } from './linear-model.js';
import type { Visitor } from './model.js';
import type { TopKRows } from './recommender.js';

/** Options of `similarItems` of models that have weights between items. */
export interface NeighbourListOptions<I extends Id = Id> extends ItemFilter<I>, JobOptions {
  /** How many; 10 unless given, or all others where there are fewer. */
  k?: number | undefined;
}

/** A model of weights between items: the score of item j is Σ_i history_i W_ij. */
export abstract class ItemWeightsModel<U extends Id, I extends Id, S extends FittedLinear<U, I>> extends LinearModel<
  U,
  I,
  S
> {
  /**
   * The items most like one item, best first, without itself. Only items of a score above 0: fewer than k where there are
   * no more.
   * @throws ERR_NOT_FITTED, ERR_UNKNOWN_ID, ERR_RANGE for k below 1 or above the catalogue
   */
  async similarItems(item: I, options: NeighbourListOptions<I> = {}): Promise<{ item: I; score: number }[]> {
    const state = this.state;
    const { items } = state;
    knownOptions(options, ['k', 'allow', 'deny', 'signal', 'onProgress']);
    const k = checkK(options.k ?? Math.min(10, items.size), items.size);
    await items.ready();
    const row = items.row(item, 'item');
    this.expectKnown(state, 'item', row);
    const allowed = allowedBits(items, options, [row]);
    const query = historyMatrix({ rows: Int32Array.of(row), weights: Float32Array.of(1) }, items.size);
    const similarities = weightsOn(this.similarities(state), this.device);
    const { ids, scores } = (await runJob('query', options, (control) =>
      native.linearSearch(control, query, undefined, similarities, k, nativeFilter({ allowed })),
    )) as TopKRows;
    const known = Array.from(ids, (at, i) => [at, scores[i]!] as const).filter(([at, score]) => at >= 0 && score > 0);
    return known.map(([at, score]) => ({ item: items.at(at), score }));
  }

  /**
   * Which items of a user's history carry the score of an item: the terms history_i W_ij of the sum that it is.
   *
   * @param who a user of the fit, or `{ history }` of somebody who is not among them
   * @throws ERR_NOT_FITTED, ERR_UNKNOWN_ID; ERR_VALUE for a user without interactions
   */
  async explain(who: U | Visitor<I>, item: I, options: ExplainOptions = {}): Promise<Explanation<I>> {
    const weights = () => weightsOn(this.weights(this.state), 'cpu');
    return explainByHistory(
      this.constructor.name,
      this.state,
      who,
      item,
      options,
      async ({ matrix }, target, control) => ({
        contributions: await native.linearContributions(control, matrix, weights(), target),
      }),
    );
  }

  /** @internal Row i: how similar other items are to item i. */
  protected similarities(state: S): LinearWeights {
    return this.weights(state);
  }

  /** @internal */
  protected queries(state: S): CsrHandles {
    return state.seen.handles;
  }

  /** @internal */
  protected async fold(state: S, history: HistoryRows): Promise<CsrHandles> {
    return this.foldSync(state, history);
  }

  /** @internal */
  protected foldSync(state: S, history: HistoryRows): CsrHandles {
    return historyMatrix(history, state.items.size);
  }
}
