import { boolean, deviceName, finite, integer, knownOptions, oneOf } from '../check.js';
import type { Id } from '../data/ids.js';
import { runJob } from '../job.js';
import { native } from '../native.js';
import type { Control, Handle } from '../native-ops.js';
import { tensor } from '../tensor.js';
import type { Fittable, Fitted } from './model.js';
import type { FactorRows, TouchedRows } from './partial-fit.js';
import { type LoadOptions, readModel, restored } from './persist.js';
import { placed } from './placed.js';
import { type FittedRatings, RatingModel, ratingState } from './rating-model.js';
import type { FitOptions } from './warm-start.js';

/** Options of BiasedMF. */
export interface BiasedMFOptions {
  /** Length of the vectors, 0 to 4096; 64 unless given. With 0 the model is the baseline μ + b_u + b_i. */
  factors?: number;
  /**
   * How the objective is minimised. 'sgd' unless given.
   * - 'sgd': stochastic gradient descent over the ratings in a random order, another one in each epoch
   * - 'als': alternating least squares, which solves for the vector and the bias of each item, then of each user
   */
  solver?: 'sgd' | 'als';
  /** Epochs of gradient descent, or sweeps of least squares; 40 unless given, 10 for 'als'. */
  iterations?: number;
  /** λ, at least 0: 0.1 unless given. A row with n ratings carries n λ. */
  regularization?: number;
  /** Of gradient descent: 0.01 unless given. */
  learningRate?: number;
  /** Epoch t, from 0, uses learningRate · learningRateDecay ^ t; 1 unless given. */
  learningRateDecay?: number;
  /** Vectors start as N(0, initStd²), biases at zero; 0.1 unless given. */
  initStd?: number;
  /** Same seed, same bytes, at any thread count; 42 unless given. */
  seed?: number;
  /** Computes the objective after each iteration, for `onProgress` and `loss`: about a third more time. */
  computeLoss?: boolean;
  /** Where the model computes; 'cpu' unless given: see `device()` for the names, docs/gpu.md for what stays on the CPU. */
  device?: string;
}

const shapes = {
  user_rows: (users: number, _items: number, options: BiasedMFOptions) => [users, (options.factors ?? 0) + 2],
  item_rows: (_users: number, items: number, options: BiasedMFOptions) => [items, (options.factors ?? 0) + 2],
  mean: () => [1, 1],
};

/**
 * Biased matrix factorization: predicts ratings as r̂_ui = μ + b_u + b_i + p_u·q_i, by minimising over the ratings
 *
 *   Σ (r_ui - r̂_ui)² + λ (|p_u|² + b_u² + |q_i|² + b_i²)
 *
 * Koren, Bell, Volinsky, "Matrix factorization techniques for recommender systems", Computer 42(8), 2009; often called
 * SVD, after Funk, which it is not: for the decomposition see PureSVD. Gradient descent runs in parallel on blocks that
 * share no row (Gemulla, Nijkamp, Haas, Sismanis, KDD 2011); least squares is ALS with weighted-λ-regularization (Zhou,
 * Wilkinson, Schreiber, Pan, AAIM 2008).
 *
 * The values of the interactions are the ratings, from 0 on. In the file of a model `user_rows · item_rowsᵀ` are the
 * predictions: a user's row is [p_u, b_u, 1], an item's [q_i, 1, μ + b_i].
 *
 * @example
 * const model = await new BiasedMF({ factors: 100 }).fit(train);
 * await model.score('ann', 'Alien');                                              // 4.31
 * await evaluate(model, { train, test }, { metrics: ['rmse', 'mae'], clip: [1, 5] });
 */
export class BiasedMF<U extends Id = Id, I extends Id = Id> extends RatingModel<U, I> {
  readonly options: Readonly<Required<BiasedMFOptions>>;

  /** @throws ERR_ARGUMENT, ERR_RANGE */
  constructor(options: BiasedMFOptions = {}) {
    super();
    this.options = Object.freeze(checkOptions(options));
  }

  /**
   * Learns from scratch, or from the last fit with `warmStart`. The model answers from its last fit until this one is
   * complete; an abort or a failure leaves that in place.
   *
   * `onProgress` counts epochs, or sweeps in halves.
   * @throws ERR_VALUE for no ratings, a negative rating, or a descent that diverges; ERR_BUSY while another fit of this
   * model runs; ERR_NOT_FITTED for a warm start without a fit
   */
  fit(ratings: Fittable<U, I>, options: FitOptions = {}): Promise<this> {
    return this.replace(async (previous) => {
      const { data, byItem, users, items } = await this.begin(previous, ratings, options);
      const found = await runJob('long', options, (control) =>
        native.biasedMfFit(control, data.seen.handles, byItem, users, items, this.options),
      );
      return ratingState(data, found, options.signal);
    }, options);
  }

  /** Reads what `save` wrote: the same answers, bit for bit. @throws ERR_IO, ERR_FORMAT */
  static async load<U extends Id = Id, I extends Id = Id>(
    path: string,
    options: LoadOptions = {},
  ): Promise<BiasedMF<U, I>> {
    const file = await readModel<U, I, BiasedMFOptions, keyof typeof shapes>(path, 'biased-mf', shapes, options);
    const model = restored(path, () => new BiasedMF<U, I>(file.options));
    const { user_rows, item_rows, mean } = Object.fromEntries(file.tensors);
    const [mu] = await mean!.data();
    const rows = { users: user_rows!.handle, items: item_rows!.handle, mean: mu!, loss: [] };
    return model.replace(() => ratingState(file, rows, options.signal));
  }

  /** @internal */
  protected override get regularization(): number {
    return this.options.regularization;
  }

  /** @internal */
  protected solve({ mean }: FittedRatings<U, I>, touched: TouchedRows, control: Control): Promise<Handle> {
    const { side, matrix } = touched;
    const fixed = side === 'users' ? touched.items : touched.users;
    return native.ratingSolve(control, matrix, placed(fixed, this.device).handle, side, mean, this.regularization);
  }

  /** @internal */
  protected withRows(
    { mean }: FittedRatings<U, I>,
    data: Fitted<U, I>,
    rows: FactorRows,
    signal: AbortSignal | undefined,
  ): Promise<FittedRatings<U, I>> {
    return ratingState(data, { users: rows.users.handle, items: rows.items.handle, mean, loss: [] }, signal);
  }

  /** @internal */
  protected saved(state: FittedRatings<U, I>) {
    const tensors = [
      ['user_rows', state.scoringUsers],
      ['item_rows', state.scoringItems],
      ['mean', tensor([[state.mean]])],
    ] as const;
    return { model: 'biased-mf', tensors };
  }
}

function checkOptions(options: BiasedMFOptions): Required<BiasedMFOptions> {
  knownOptions(options, [
    'factors',
    'solver',
    'iterations',
    'regularization',
    'learningRate',
    'learningRateDecay',
    'initStd',
    'seed',
    'computeLoss',
    'device',
  ]);
  const solver = oneOf('solver', options.solver ?? 'sgd', ['sgd', 'als'] as const);
  const als = solver === 'als';
  return {
    factors: integer('factors', options.factors ?? 64, 0, 4096),
    solver,
    iterations: integer('iterations', options.iterations ?? (als ? 10 : 40), 1),
    regularization: finite('regularization', options.regularization ?? 0.1, 0),
    learningRate: finite('learningRate', options.learningRate ?? 0.01, 0),
    learningRateDecay: finite('learningRateDecay', options.learningRateDecay ?? 1, 0),
    initStd: finite('initStd', options.initStd ?? 0.1, 0),
    seed: integer('seed', options.seed ?? 42, 0),
    computeLoss: boolean('computeLoss', options.computeLoss ?? false),
    device: deviceName(options.device ?? 'cpu'),
  };
}
