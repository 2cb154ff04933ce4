import { integer, knownOptions } from '../check.js';
import type { Id } from '../data/ids.js';
import { runJob } from '../job.js';
import { native } from '../native.js';
import type { Control, Handle } from '../native-ops.js';
import { checkSvdOptions, decompose, type SvdOptions, svdOptions } from '../ops/truncated-svd.js';
import { Tensor } from '../tensor.js';
import { type Empty, type ExplainOptions, type Explanation, expectInteractions, explainByHistory } from './explain.js';
import { FactorModel, type FittedFactors } from './factor-model.js';
import { type HistoryRows, historyMatrix } from './history.js';
import { lent } from './lent.js';
import { checkedInteractions, type Fittable, type Fitted, stats, type Visitor } from './model.js';
import { type LoadOptions, readModel, restored } from './persist.js';
import { placed } from './placed.js';
import { type FitOptions, gatherRows } from './warm-start.js';

export interface PureSVDOptions extends SvdOptions {
  /** How many singular vectors; 64 unless given. More than the smaller of users and items are taken as that many. */
  factors?: number;
}

/** @internal */
interface FittedPureSVD<U extends Id, I extends Id> extends FittedFactors<U, I>, Empty {
  readonly singularValues: Tensor<'float32'>;
}

const shapes = {
  item_factors: (_users: number, items: number, options: PureSVDOptions) => [items, options.factors ?? 0],
  singular_values: (_users: number, _items: number, options: PureSVDOptions) => [options.factors ?? 0, 1],
};

/**
 * The truncated singular value decomposition of the interactions, unknown cells being 0: the scores of a user with the
 * row x are x V Vᵀ, V the first right singular vectors. Cremonesi, Koren, Turrin, "Performance of recommender algorithms
 * on top-N recommendation tasks", RecSys 2010. So `foldIn` is x V, exactly, and a score the sum of what each item of the
 * history gives to it.
 */
export class PureSVD<U extends Id = Id, I extends Id = Id> extends FactorModel<U, I, FittedPureSVD<U, I>> {
  readonly options: Readonly<Required<PureSVDOptions>>;

  /** @throws ERR_ARGUMENT, ERR_RANGE */
  constructor(options: PureSVDOptions = {}) {
    super();
    knownOptions(options, ['factors', ...svdOptions]);
    const factors = integer('factors', options.factors ?? 64, 1, 2048);
    this.options = Object.freeze({ factors, ...checkSvdOptions(options) });
  }

  /**
   * Decomposes the interactions; with `warmStart` from the item vectors of the last fit, by id, which takes fewer products
   * where the data has changed little. `onProgress` counts cycles, of which few are needed as a rule.
   * @throws ERR_VALUE for no interactions or a negative weight; ERR_BUSY while another fit of this model runs;
   * ERR_NOT_FITTED for a warm start without a fit
   */
  fit(interactions: Fittable<U, I>, options: FitOptions = {}): Promise<this> {
    return this.replace(async (previous) => {
      knownOptions(options, ['warmStart', 'signal', 'onProgress']);
      const { signal } = options;
      const { factors, ...svd } = this.options;
      const data = await checkedInteractions(interactions, options);
      const start = this.startOf(previous, options);
      const vectors = start && (await gatherRows(start.items, start.itemFactors, data.items, signal));
      const { u, s, v } = await decompose(data.seen, factors, vectors, svd, options);
      u.dispose();
      return this.#complete(data, v, s, signal);
    }, options);
  }

  /**
   * Which items of a user's history carry the score of an item: the terms x_i (V_i · V_j) of the sum that it is.
   *
   * @param who a user of the fit, or `{ history }` of somebody who is not among them
   * @throws ERR_NOT_FITTED, ERR_UNKNOWN_ID; ERR_VALUE for a user without interactions
   */
  async explain(who: U | Visitor<I>, item: I, options: ExplainOptions = {}): Promise<Explanation<I>> {
    const { handle } = this.state.itemFactors;
    return explainByHistory('PureSVD', this.state, who, item, options, async ({ rows, weights }, target, control) => {
      const targets = new Int32Array(rows.length).fill(target);
      const scores = await native.read(await native.pairScores(control, handle, handle, rows, targets));
      return { contributions: (scores as Float32Array).map((score, i) => score * weights[i]!) };
    });
  }

  /** The singular values, falling, float32 [factors]; 0 beyond the rank of the interactions. @throws ERR_NOT_FITTED */
  get singularValues(): Tensor<'float32'> {
    return lent(this.state.singularValues);
  }

  /** Reads what `save` wrote: the same answers, bit for bit. @throws ERR_IO, ERR_FORMAT */
  static async load<U extends Id = Id, I extends Id = Id>(
    path: string,
    options: LoadOptions = {},
  ): Promise<PureSVD<U, I>> {
    const file = await readModel<U, I, PureSVDOptions, keyof typeof shapes>(path, 'pure-svd', shapes, options);
    const model = restored(path, () => new PureSVD<U, I>(file.options));
    const { item_factors, singular_values } = Object.fromEntries(file.tensors);
    return model.replace(() =>
      model.#complete(file, item_factors!, singular_values!.reshape([model.options.factors]), options.signal),
    );
  }

  async #complete(
    { users, items, seen }: Fitted<U, I>,
    itemFactors: Tensor<'float32'>,
    singularValues: Tensor<'float32'>,
    signal: AbortSignal | undefined,
  ): Promise<FittedPureSVD<U, I>> {
    const userFactors = await runJob('long', { signal }, (control) =>
      native.spmm(control, seen.handles, itemFactors.handle),
    );
    const { emptyUsers, emptyItems } = await stats(seen, signal);
    return {
      users,
      items,
      seen,
      userFactors: new Tensor(userFactors),
      itemFactors,
      singularValues,
      emptyUsers,
      emptyItems,
    };
  }

  /** @internal */
  protected saved(state: FittedPureSVD<U, I>) {
    const tensors = [
      ['item_factors', state.itemFactors],
      ['singular_values', state.singularValues.reshape([this.options.factors, 1])],
    ] as const;
    return { model: 'pure-svd', tensors };
  }

  /** @internal */
  protected fold({ items, itemFactors }: FittedPureSVD<U, I>, history: HistoryRows, control: Control): Promise<Handle> {
    return native.spmm(control, historyMatrix(history, items.size), placed(itemFactors, this.device).handle);
  }

  /** @internal */
  protected foldSync({ items, itemFactors }: FittedPureSVD<U, I>, history: HistoryRows): Handle {
    return native.spmmSync(historyMatrix(history, items.size), placed(itemFactors, this.device).handle);
  }

  /** @internal */
  protected override expectKnown(state: FittedPureSVD<U, I>, side: 'user' | 'item', row: number): void {
    expectInteractions('PureSVD', state, side, row);
  }
}
