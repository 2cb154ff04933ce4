import { boolean, deviceName, finite, integer, knownOptions } from '../check.js';
import type { Id } from '../data/ids.js';
import { runJob } from '../job.js';
import { native } from '../native.js';
import type { Control, Handle } from '../native-ops.js';
import { full, Tensor, tensor } from '../tensor.js';
import { type HistoryRows, historyMatrix } from './history.js';
import type { Fittable, Fitted } from './model.js';
import type { FactorRows, TouchedRows } from './partial-fit.js';
import { type LoadOptions, readModel, restored } from './persist.js';
import { type FittedRatings, RatingModel, ratingState } from './rating-model.js';
import { type FitOptions, gatherRows } from './warm-start.js';

/** Options of SVDpp. */
export interface SVDppOptions {
  /** Length of the vectors, 1 to 4096; 20 unless given. */
  factors?: number;
  /** Epochs; 30 unless given. */
  iterations?: number;
  /** λ, at least 0; 0.1 unless given. A row with n ratings carries n λ. */
  regularization?: number;
  /** 0.005 unless given. */
  learningRate?: number;
  /** Epoch t, from 0, uses learningRate · learningRateDecay ^ t; 1 unless given. */
  learningRateDecay?: number;
  /** p_u and q_i start as N(0, initStd²), all else at zero; 0.1 unless given. */
  initStd?: number;
  /** Same seed, same bytes, at any thread count; 42 unless given. */
  seed?: number;
  /** Computes the objective after each epoch, for `onProgress` and `loss`. */
  computeLoss?: boolean;
  /** Where the model computes; 'cpu' unless given: see `device()` for the names, docs/gpu.md for what stays on the CPU. */
  device?: string;
}

/** @internal */
interface FittedSvdpp<U extends Id, I extends Id> extends FittedRatings<U, I> {
  /** [p_u, b_u, 1]: [users, factors + 2] */
  readonly ownRows: Tensor<'float32'>;
  /** y: [items, factors] */
  readonly implicit: Tensor<'float32'>;
}

const rows = (count: number, options: SVDppOptions) => [count, (options.factors ?? 0) + 2];
const shapes = {
  user_rows: (users: number, _items: number, options: SVDppOptions) => rows(users, options),
  item_rows: (_users: number, items: number, options: SVDppOptions) => rows(items, options),
  implicit: (_users: number, items: number, options: SVDppOptions) => [items, options.factors ?? 0],
  mean: () => [1, 1],
};

/**
 * SVD++: biased matrix factorization in which also the choice of items that a user has rated tells of their taste,
 *
 *   r̂_ui = μ + b_u + b_i + q_i·(p_u + n_u^-½ Σ_{j rated by u} y_j)
 *
 * by gradient descent on Σ (r_ui - r̂_ui)² + λ (|p_u|² + b_u² + |q_i|² + b_i² + |y_i|²) over the ratings. Koren,
 * "Factorization meets the neighborhood: a multifaceted collaborative filtering model", KDD 2008. The descent visits
 * batches of 64 users: all users of a batch side by side, then all their items.
 *
 * `userFactors` are the whole p_u + n_u^-½ Σ y_j. Where a history is folded in, the y_j of its items take part. `partialFit` leaves
 * the y_j as they are, those of new items zero, since each is part of all users who have rated the item.
 */
export class SVDpp<U extends Id = Id, I extends Id = Id> extends RatingModel<U, I, FittedSvdpp<U, I>> {
  readonly options: Readonly<Required<SVDppOptions>>;

  /** @throws ERR_ARGUMENT, ERR_RANGE */
  constructor(options: SVDppOptions = {}) {
    super();
    this.options = Object.freeze(checkOptions(options));
  }

  /**
   * Learns from scratch, or from the last fit with `warmStart`. The model answers from its last fit until this one is
   * complete; an abort or a failure leaves that in place. `onProgress` counts epochs.
   * @throws ERR_VALUE for no ratings, a negative rating, or a descent that diverges; ERR_BUSY while another fit of this
   * model runs; ERR_NOT_FITTED for a warm start without a fit
   */
  fit(ratings: Fittable<U, I>, options: FitOptions = {}): Promise<this> {
    return this.replace(async (previous) => {
      const { data, byItem, last, users, items } = await this.begin(previous, ratings, options);
      const { signal } = options;
      const implicit = last && (await gatherRows(last.items, last.implicit, data.items, signal));
      const found = await runJob('long', options, (control) =>
        native.svdppFit(control, data.seen.handles, byItem, users, items, implicit, this.options),
      );
      return complete(data, found, signal);
    }, options);
  }

  /** Reads what `save` wrote: the same answers, bit for bit. @throws ERR_IO, ERR_FORMAT */
  static async load<U extends Id = Id, I extends Id = Id>(
    path: string,
    options: LoadOptions = {},
  ): Promise<SVDpp<U, I>> {
    const file = await readModel<U, I, SVDppOptions, keyof typeof shapes>(path, 'svdpp', shapes, options);
    const model = restored(path, () => new SVDpp<U, I>(file.options));
    const { user_rows, item_rows, implicit, mean } = Object.fromEntries(file.tensors);
    const [mu] = await mean!.data();
    const found = { users: user_rows!.handle, items: item_rows!.handle, implicit: implicit!.handle };
    return model.replace(() => complete(file, { ...found, mean: mu!, loss: [] }, options.signal));
  }

  /** @internal */
  protected override get regularization(): number {
    return this.options.regularization;
  }

  /** @internal */
  protected override rows({ ownRows, scoringItems }: FittedSvdpp<U, I>): FactorRows {
    return { users: ownRows, items: scoringItems };
  }

  /** @internal */
  protected override implicit({ implicit }: FittedSvdpp<U, I>): Tensor<'float32'> {
    return implicit;
  }

  /** @internal */
  protected async solve(state: FittedSvdpp<U, I>, touched: TouchedRows, control: Control): Promise<Handle> {
    const { side, matrix, users, items, seen } = touched;
    const { mean } = state;
    const implicit = await grownImplicit(state, items.shape[0]!, control);
    if (side === 'users') return native.svdppSolve(control, matrix, items.handle, implicit, mean, this.regularization);
    const whole = await native.svdppUsers(control, seen.handles, users.handle, implicit);
    return native.ratingSolve(control, matrix, whole, 'items', mean, this.regularization);
  }

  /** @internal */
  protected async withRows(
    state: FittedSvdpp<U, I>,
    data: Fitted<U, I>,
    rows: FactorRows,
    signal: AbortSignal | undefined,
  ): Promise<FittedSvdpp<U, I>> {
    const implicit = await runJob('long', { signal }, (control) => grownImplicit(state, data.items.size, control));
    const found = { users: rows.users.handle, items: rows.items.handle, implicit, mean: state.mean, loss: [] };
    return complete(data, found, signal);
  }

  /** @internal */
  protected override async fold(state: FittedSvdpp<U, I>, history: HistoryRows, control: Control): Promise<Handle> {
    const { row, implicit, mean } = this.#folding(state, history);
    const own = await native.svdppSolve(control, row, state.scoringItems.handle, implicit, mean, this.regularization);
    return native.svdppUsers(control, row, own, implicit);
  }

  /** @internal */
  protected override foldSync(state: FittedSvdpp<U, I>, history: HistoryRows): Handle {
    const { row, implicit, mean } = this.#folding(state, history);
    const own = native.svdppSolveSync(row, state.scoringItems.handle, implicit, mean, this.regularization);
    return native.svdppUsersSync(row, own, implicit);
  }

  #folding({ scoringItems, implicit, mean }: FittedSvdpp<U, I>, history: HistoryRows) {
    return { row: historyMatrix(history, scoringItems.shape[0]!), implicit: implicit.handle, mean };
  }

  /** @internal */
  protected saved(state: FittedSvdpp<U, I>) {
    const tensors = [
      ['user_rows', state.ownRows],
      ['item_rows', state.scoringItems],
      ['implicit', state.implicit],
      ['mean', tensor([[state.mean]])],
    ] as const;
    return { model: 'svdpp', tensors };
  }
}

/** The y_j, zero for items that are new. */
const grownImplicit = ({ implicit }: FittedSvdpp<Id, Id>, items: number, control: Control): Promise<Handle> =>
  native.replaceRows(control, implicit.handle, items, new Int32Array(), full([0, implicit.shape[1]!]).handle);

async function complete<U extends Id, I extends Id>(
  data: Fitted<U, I>,
  found: { users: Handle; items: Handle; implicit: Handle; mean: number; loss: readonly number[] },
  signal: AbortSignal | undefined,
): Promise<FittedSvdpp<U, I>> {
  const users = await runJob('long', { signal }, (control) =>
    native.svdppUsers(control, data.seen.handles, found.users, found.implicit),
  );
  const state = await ratingState(data, { ...found, users }, signal);
  return { ...state, ownRows: new Tensor(found.users), implicit: new Tensor(found.implicit) };
}

function checkOptions(options: SVDppOptions): Required<SVDppOptions> {
  knownOptions(options, [
    'factors',
    'iterations',
    'regularization',
    'learningRate',
    'learningRateDecay',
    'initStd',
    'seed',
    'computeLoss',
    'device',
  ]);
  return {
    factors: integer('factors', options.factors ?? 20, 1, 4096),
    iterations: integer('iterations', options.iterations ?? 30, 1),
    regularization: finite('regularization', options.regularization ?? 0.1, 0),
    learningRate: finite('learningRate', options.learningRate ?? 0.005, 0),
    learningRateDecay: finite('learningRateDecay', options.learningRateDecay ?? 1, 0),
    initStd: finite('initStd', options.initStd ?? 0.1, 0),
    seed: integer('seed', options.seed ?? 42, 0),
    computeLoss: boolean('computeLoss', options.computeLoss ?? false),
    device: deviceName(options.device ?? 'cpu'),
  };
}
