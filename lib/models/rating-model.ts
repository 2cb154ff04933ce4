import type { Id } from '../data/ids.js';
import { runJob } from '../job.js';
import { native } from '../native.js';
import type { Control, Handle } from '../native-ops.js';
import { Tensor } from '../tensor.js';
import { type Empty, type ExplainOptions, type Explanation, explainByHistory } from './explain.js';
import type { FittedFactors } from './factor-model.js';
import { type HistoryRows, historyMatrix } from './history.js';
import { LearnedModel } from './learned-model.js';
import { lent } from './lent.js';
import { type Fitted, stats, type Visitor } from './model.js';
import { type FactorRows, partsOf } from './partial-fit.js';
import { placed } from './placed.js';

/**
 * A fit of a model of ratings. r̂_ui = μ + b_u + b_i + p_u·q_i is the inner product of [p_u, b_u, 1] and
 * [q_i, 1, μ + b_i]: `scoringUsers` and `scoringItems`. @internal
 */
export interface FittedRatings<U extends Id, I extends Id> extends FittedFactors<U, I>, Empty {
  /** [users, factors + 2] */
  readonly scoringUsers: Tensor<'float32'>;
  /** [items, factors + 2] */
  readonly scoringItems: Tensor<'float32'>;
  /** b_u: [users] */
  readonly userBiases: Tensor<'float32'>;
  /** μ + b_i: [items] */
  readonly itemBiases: Tensor<'float32'>;
  /** μ. */
  readonly mean: number;
  readonly loss: readonly number[];
}

/**
 * A model that predicts ratings: r̂_ui = μ + b_u + b_i + p_u·q_i, in the units of the ratings that it was fitted on, not
 * clipped to their range. `recommend` ranks by it; `score` and `scorePairs` return it; `evaluate` measures its RMSE and
 * MAE. `similarItems` and `similarUsers` compare the vectors, without the biases.
 *
 * A history is folded in, and `partialFit` solves rows, by least squares of vector and bias with the other side fixed, exactly;
 * μ stays that of the fit. The weights of a history are ratings: an item without one counts as rated at the mean, and of several ratings of one
 * item the last counts. Users without ratings get μ + b_i.
 */
export abstract class RatingModel<
  U extends Id,
  I extends Id,
  S extends FittedRatings<U, I> = FittedRatings<U, I>,
> extends LearnedModel<U, I, S> {
  /** @internal λ of fold-in. */
  protected abstract readonly regularization: number;

  /** μ, the mean of the ratings of the last fit. @throws ERR_NOT_FITTED */
  get mean(): number {
    return this.state.mean;
  }

  /** b_u of every user, float32 [users], in the order of `users`. @throws ERR_NOT_FITTED */
  get userBiases(): Tensor<'float32'> {
    return lent(this.state.userBiases);
  }

  /** μ + b_i of every item, float32 [items], in the order of `items`. @throws ERR_NOT_FITTED */
  get itemBiases(): Tensor<'float32'> {
    return lent(this.state.itemBiases);
  }

  /** The objective after each iteration of the last fit, where `computeLoss` asked for it. @throws ERR_NOT_FITTED */
  get loss(): readonly number[] {
    return this.state.loss;
  }

  /**
   * Which ratings of a history carry the predicted rating of an item. With the items fixed, vector and bias are linear in how
   * far the ratings are from μ + b_i, and so is the prediction: it is the baseline μ + b_i of the item and one term for each
   * rating, negative for a rating below what was to be expected of a similar item. In SVDpp a term has also what the
   * choice of the item tells, y_j. After Hu, Koren, Volinsky 2008, section 5.
   *
   * It accounts for the score that `recommend` gives to `{ history }`, exactly. For a user of a fit by least squares that is
   * their own; the vector of one that was found by gradient descent is near, but not the same.
   *
   * @param who a user of the fit, or `{ history }` of somebody who is not among them
   * @throws ERR_NOT_FITTED, ERR_UNKNOWN_ID, ERR_RANGE; ERR_VALUE for a user without ratings, or where there is no regularization
   * and too few ratings
   */
  async explain(who: U | Visitor<I>, item: I, options: ExplainOptions = {}): Promise<Explanation<I>> {
    const state = this.state;
    return explainByHistory(
      this.constructor.name,
      state,
      who,
      item,
      options,
      ({ matrix }, target, control) => {
        const { scoringItems } = state;
        const implicit = this.implicit(state)?.handle;
        return native.ratingExplain(control, matrix, scoringItems.handle, implicit, target, this.regularization);
      },
      this.unratedWeight(state),
    );
  }

  /** @internal The y of SVDpp. */
  protected implicit(_state: S): Tensor<'float32'> | undefined {
    return undefined;
  }

  /** @internal */
  protected override freshRow(state: S, side: keyof FactorRows): Float32Array {
    const factors = state.itemFactors.shape[1]!;
    return Float32Array.of(...new Float32Array(factors), ...(side === 'users' ? [0, 1] : [1, state.mean]));
  }

  /** @internal */
  protected override unratedWeight(state: S): number {
    return state.mean;
  }

  /** @internal */
  protected fold({ scoringItems, mean }: S, history: HistoryRows, control: Control): Promise<Handle> {
    const row = historyMatrix(history, scoringItems.shape[0]!);
    return native.ratingSolve(
      control,
      row,
      placed(scoringItems, this.device).handle,
      'users',
      mean,
      this.regularization,
    );
  }

  /** @internal */
  protected foldSync({ scoringItems, mean }: S, history: HistoryRows): Handle {
    const row = historyMatrix(history, scoringItems.shape[0]!);
    return native.ratingSolveSync(row, placed(scoringItems, this.device).handle, 'users', mean, this.regularization);
  }
}

/** A state from the rows of a model. @internal */
export async function ratingState<U extends Id, I extends Id>(
  { users, items, seen }: Fitted<U, I>,
  rows: { users: Handle; items: Handle; mean: number; loss: readonly number[] },
  signal: AbortSignal | undefined,
): Promise<FittedRatings<U, I>> {
  const [scoringUsers, scoringItems] = [new Tensor<'float32'>(rows.users), new Tensor<'float32'>(rows.items)];
  const { emptyUsers, emptyItems } = await stats(seen, signal);
  return runJob('long', { signal }, async (control) => ({
    users,
    items,
    seen,
    emptyUsers,
    emptyItems,
    scoringUsers,
    scoringItems,
    ...(await partsOf(control, scoringUsers, scoringItems)),
    mean: rows.mean,
    loss: rows.loss,
  }));
}
