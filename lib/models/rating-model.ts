import type { Id } from '../data/ids.js';
import { type JobOptions, runJob } from '../job.js';
import { native } from '../native.js';
import type { Control, Handle } from '../native-ops.js';
import { Tensor } from '../tensor.js';
import { FactorModel, type FittedFactors } from './factor-model.js';
import { type History, type HistoryRows, historyMatrix } from './history.js';
import type { Fitted } from './model.js';

/**
 * A fit of a model of ratings. r̂_ui = μ + b_u + b_i + p_u·q_i is the inner product of [p_u, b_u, 1] and
 * [q_i, 1, μ + b_i]: `scoringUsers` and `scoringItems`. @internal
 */
export interface FittedRatings<U extends Id, I extends Id> extends FittedFactors<U, I> {
  /** [users, factors + 2] */
  readonly scoringUsers: Tensor<'float32'>;
  /** [items, factors + 2] */
  readonly scoringItems: Tensor<'float32'>;
  /** μ. */
  readonly mean: number;
  readonly loss: readonly number[];
}

/** Somebody's part of their predicted ratings. */
export interface RatingVector {
  /** p_u: float32 [factors]. */
  readonly vector: Float32Array;
  /** b_u. */
  readonly bias: number;
}

/**
 * A model that predicts ratings: r̂_ui = μ + b_u + b_i + p_u·q_i, in the units of the ratings that it was fitted on, not
 * clipped to their range. `recommend` ranks by it; `score` and `scorePairs` return it; `evaluate` measures its RMSE and
 * MAE. `similarItems` and `similarUsers` compare the vectors, without the biases.
 *
 * The weights of a history are ratings: an item without one counts as rated at the mean, and of several ratings of one
 * item the last counts. Users without ratings get μ + b_i.
 */
export abstract class RatingModel<
  U extends Id,
  I extends Id,
  S extends FittedRatings<U, I> = FittedRatings<U, I>,
> extends FactorModel<U, I, S> {
  /** @internal λ of fold-in. */
  protected abstract readonly regularization: number;

  /** μ, the mean of the ratings of the last fit. @throws ERR_NOT_FITTED */
  get mean(): number {
    return this.state.mean;
  }

  /** b_u of every user, float32 [users, 1], in the order of `users`. @throws ERR_NOT_FITTED */
  async userBiases(): Promise<Tensor<'float32'>> {
    const { scoringUsers } = this.state;
    return column(scoringUsers, scoringUsers.shape[1]! - 2);
  }

  /** μ + b_i of every item, float32 [items, 1], in the order of `items`. @throws ERR_NOT_FITTED */
  async itemBiases(): Promise<Tensor<'float32'>> {
    const { scoringItems } = this.state;
    return column(scoringItems, scoringItems.shape[1]! - 1);
  }

  /** The objective after each iteration of the last fit, where `computeLoss` asked for it. @throws ERR_NOT_FITTED */
  get loss(): readonly number[] {
    return this.state.loss;
  }

  /**
   * The vector and the bias of somebody with these ratings: what minimises the objective for them with the items fixed.
   * @throws ERR_NOT_FITTED, ERR_UNKNOWN_ID; ERR_VALUE for an empty history or a rating that is not positive
   * @example await model.foldIn([{ item: 'Alien', weight: 5 }, { item: 'Cats', weight: 1 }]);
   */
  async foldIn(history: History<I>, options: JobOptions = {}): Promise<RatingVector> {
    const fold = (state: S, rows: HistoryRows, control: Control) => this.fold(state, rows, control);
    const all = await this.folded(history, options, fold, this.state.mean);
    return { vector: all.slice(0, -2), bias: all.at(-2)! };
  }

  /** @internal */
  protected override unratedWeight(state: S): number {
    return state.mean;
  }

  /** @internal */
  protected fold({ scoringItems, mean }: S, history: HistoryRows, control: Control): Promise<Handle> {
    const row = historyMatrix(history, scoringItems.shape[0]!);
    return native.ratingSolve(control, row, scoringItems.handle, 'users', mean, this.regularization);
  }

  /** @internal */
  protected foldSync({ scoringItems, mean }: S, history: HistoryRows): Handle {
    const row = historyMatrix(history, scoringItems.shape[0]!);
    return native.ratingSolveSync(row, scoringItems.handle, 'users', mean, this.regularization);
  }
}

/** A state from the rows of a model. @internal */
export async function ratingState<U extends Id, I extends Id>(
  { users, items, seen }: Fitted<U, I>,
  rows: { users: Handle; items: Handle; mean: number; loss: readonly number[] },
  signal: AbortSignal | undefined,
): Promise<FittedRatings<U, I>> {
  const [scoringUsers, scoringItems] = [new Tensor<'float32'>(rows.users), new Tensor<'float32'>(rows.items)];
  const factors = scoringUsers.shape[1]! - 2;
  const vectors = (from: Tensor) =>
    runJob('long', { signal }, (control) => native.takeColumns(control, from.handle, 0, factors));
  return {
    users,
    items,
    seen,
    scoringUsers,
    scoringItems,
    userFactors: new Tensor(await vectors(scoringUsers)),
    itemFactors: new Tensor(await vectors(scoringItems)),
    mean: rows.mean,
    loss: rows.loss,
  };
}

async function column(rows: Tensor<'float32'>, at: number): Promise<Tensor<'float32'>> {
  return new Tensor(await runJob('query', {}, (control) => native.takeColumns(control, rows.handle, at, 1)));
}
