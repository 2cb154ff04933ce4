import { boolean, deviceName, finite, integer, knownOptions, oneOf } from '../check.js';
import type { Id } from '../data/ids.js';
import { runJob } from '../job.js';
import { native } from '../native.js';
import type { Control, Handle } from '../native-ops.js';
import { Tensor } from '../tensor.js';
import { type Empty, type ExplainOptions, type Explanation, expectInteractions, explainByHistory } from './explain.js';
import type { FittedFactors } from './factor-model.js';
import { type HistoryRows, historyMatrix } from './history.js';
import { LearnedModel } from './learned-model.js';
import { type Fittable, type Fitted, stats, type Visitor } from './model.js';
import type { FactorRows, TouchedRows } from './partial-fit.js';
import { type LoadOptions, readModel, restored } from './persist.js';
import { placed } from './placed.js';
import type { FitOptions } from './warm-start.js';

/** Options of ALS. Weights: w_ui = alpha · value of an observed cell, w0 = unobservedWeight for every cell. */
export interface ALSOptions {
  /** Length of the vectors, 1 to 4096; 64 unless given. */
  factors?: number;
  /**
   * What is minimised, beside the regularization. 'ials' unless given.
   * - 'ials': Σ_observed w_ui (1 - x_u·y_i)² + w0 Σ_all (x_u·y_i)², of Rendle, Krichene, Zhang, Koren, "Revisiting the
   *   performance of iALS on item recommendation benchmarks", RecSys 2022
   * - 'hkv': Σ_observed (w0 + w_ui) (1 - x_u·y_i)² + w0 Σ_others (x_u·y_i)², of Hu, Koren, Volinsky, "Collaborative
   *   filtering for implicit feedback datasets", ICDM 2008
   */
  objective?: 'ials' | 'hkv';
  /** w0, at least 0: 0.1 unless given; 1 for 'hkv'. The larger, the more the model believes what was not chosen. */
  unobservedWeight?: number;
  /** Weight of one unit of value, at least 0: 1 unless given; 40 for 'hkv'. */
  alpha?: number;
  /** At least 0: 0.003 unless given; 0.01 for 'hkv'. */
  regularization?: number;
  /**
   * λ of a row with n entries: 'constant': regularization; 'perEntry': regularization · (n + w0 · rows of the other
   * side) ^ regularizationExponent. 'perEntry' unless given; 'constant' for 'hkv'.
   */
  regularizationForm?: 'constant' | 'perEntry';
  /** ν of Rendle et al.: 1 unless given. */
  regularizationExponent?: number;
  /**
   * How a sweep solves the rows of a side. 'cholesky' unless given.
   * - 'cholesky': exactly
   * - 'cg': `cgSteps` conjugate gradient steps
   * - 'subspace': one pass over blocks of `blockSize` coordinates, each solved exactly with the others fixed: cost
   *   and memory of a row grow with the block, not with all factors, for more sweeps to the same objective. Where most
   *   rows are shorter than `factors`, 'cholesky' is faster (docs/performance/rating.md). Rendle, Krichene, Zhang, Koren, "iALS++:
   *   Speeding up matrix factorization with subspace optimization", 2021
   */
  solver?: 'cholesky' | 'cg' | 'subspace';
  /** 3 unless given. */
  cgSteps?: number;
  /** 128 unless given. */
  blockSize?: number;
  /** Sweeps over items and users; 16 unless given. */
  iterations?: number;
  /** Vectors start as N(0, initStd / √factors); 0.1 unless given. */
  initStd?: number;
  /** Same seed, same bytes, at any thread count; 42 unless given. */
  seed?: number;
  /** Computes the objective after each sweep, for `onProgress` and `loss`: about a tenth more time. */
  computeLoss?: boolean;
  /**
   * Where the model computes; 'cpu' unless given: see `device()` for the names, docs/gpu.md for what stays on the CPU. `fit`
   * copies vectors and interactions to a GPU once, and the vectors back at the end.
   */
  device?: string;
  /**
   * Bytes of the GPU's memory that `fit` may take: what is free there unless given, or 0. Interactions that do not fit
   * beside the vectors stream through in blocks of rows, in every sweep.
   */
  deviceBytes?: number;
}

/** @internal */
interface FittedAls<U extends Id, I extends Id> extends FittedFactors<U, I>, Empty {
  /** itemFactorsᵀ itemFactors, for fold-in. */
  readonly gram: Tensor<'float32'>;
  readonly loss: readonly number[];
}

const shapes = {
  user_factors: (users: number, _items: number, options: ALSOptions) => [users, options.factors ?? 0],
  item_factors: (_users: number, items: number, options: ALSOptions) => [items, options.factors ?? 0],
};

/**
 * Matrix factorization for implicit feedback by alternating least squares. For explicit ratings, where a low value means
 * dislike, alternate with `BiasedMF({ solver: 'als' })`.
 *
 * Each sweep solves all items with the users fixed, then all users with the items fixed. So a user's vector is what
 * `foldIn` gives for the same history, and `explain` accounts for the very score that `recommend` returns (to rounding;
 * with the solvers 'cg' and 'subspace', to what their steps leave open; `foldIn` of 'subspace' solves exactly).
 *
 * Users and items without interactions get zero vectors: `recommend` for such a user and `similarItems` for such an item
 * throw ERR_VALUE; by row number (`topKRows`) every score is 0.
 *
 * @example
 * const model = await new ALS({ factors: 64 }).fit(ratings, { onProgress: ({ done, total }) => bar(done / total) });
 * await model.recommend('ann', { k: 5 });
 */
export class ALS<U extends Id = Id, I extends Id = Id> extends LearnedModel<U, I, FittedAls<U, I>> {
  readonly options: Readonly<Required<ALSOptions>>;

  /** @throws ERR_ARGUMENT, ERR_RANGE */
  constructor(options: ALSOptions = {}) {
    super();
    this.options = Object.freeze(checkOptions(options));
  }

  /**
   * Learns from scratch, or from the last fit with `warmStart`. The model answers from its last fit until this one is
   * complete; an abort or a failure leaves that in place.
   *
   * `onProgress` counts sweeps, in halves.
   * @throws ERR_VALUE for no interactions, a negative weight, or rows that cannot be solved for want of regularization;
   * ERR_BUSY while another fit of this model runs; ERR_NOT_FITTED for a warm start without a fit; ERR_DEVICE when the
   * device is not there, ERR_MEMORY when its memory does not hold the vectors
   */
  fit(interactions: Fittable<U, I>, options: FitOptions = {}): Promise<this> {
    return this.replace(async (previous) => {
      const { data, byItem, users, items } = await this.begin(previous, interactions, options);
      // The engine solves rows, then columns: with the items as rows, a sweep ends with the users.
      const found = await runJob('long', options, (control) =>
        native.alsFit(control, byItem, data.seen.handles, items, users, this.options),
      );
      const rows = { users: new Tensor<'float32'>(found.itemFactors), items: new Tensor<'float32'>(found.userFactors) };
      return complete(data, rows, found.loss, options.signal);
    }, options);
  }

  /**
   * Which items of a user's history carry the score of an item: with the items fixed, a user's vector is a weighted sum
   * over their history, and so is each score. Hu, Koren, Volinsky 2008, section 5.
   *
   * @param who a user of the fit, or `{ history }` of somebody who is not among them
   * @throws ERR_NOT_FITTED, ERR_UNKNOWN_ID, ERR_RANGE; ERR_VALUE for a user without interactions
   */
  async explain(who: U | Visitor<I>, item: I, options: ExplainOptions = {}): Promise<Explanation<I>> {
    const state = this.state;
    return explainByHistory('ALS', state, who, item, options, async ({ matrix }, target, control) => {
      const { itemFactors, gram } = state;
      return {
        contributions: await native.alsExplain(control, matrix, itemFactors.handle, gram.handle, target, this.options),
      };
    });
  }

  /** The objective after each sweep of the last fit, where `computeLoss` asked for it. @throws ERR_NOT_FITTED */
  get loss(): readonly number[] {
    return this.state.loss;
  }

  /** Reads what `save` wrote: the same answers, bit for bit. @throws ERR_IO, ERR_FORMAT */
  static async load<U extends Id = Id, I extends Id = Id>(path: string, options: LoadOptions = {}): Promise<ALS<U, I>> {
    const file = await readModel<U, I, ALSOptions, keyof typeof shapes>(path, 'als', shapes, options);
    const model = restored(path, () => new ALS<U, I>(file.options));
    const { user_factors, item_factors } = Object.fromEntries(file.tensors);
    return model.replace(() => complete(file, { users: user_factors!, items: item_factors! }, [], options.signal));
  }

  /** @internal */
  protected async solve(_state: FittedAls<U, I>, touched: TouchedRows, control: Control): Promise<Handle> {
    const { side, at, matrix } = touched;
    const fixed = side === 'users' ? touched.items : touched.users;
    const start = await native.takeRows(control, touched[side].handle, at);
    return native.alsSolve(control, matrix, placed(fixed, this.device).handle, undefined, start, this.options);
  }

  /** @internal */
  protected withRows(
    _state: FittedAls<U, I>,
    data: Fitted<U, I>,
    rows: FactorRows,
    signal: AbortSignal | undefined,
  ): Promise<FittedAls<U, I>> {
    return complete(data, rows, [], signal);
  }

  /** @internal */
  protected saved(state: FittedAls<U, I>) {
    const tensors = [
      ['user_factors', state.userFactors],
      ['item_factors', state.itemFactors],
    ] as const;
    return { model: 'als', tensors };
  }

  /** @internal */
  protected fold({ itemFactors, gram }: FittedAls<U, I>, history: HistoryRows, control: Control): Promise<Handle> {
    return native.alsSolve(control, ...this.#foldArguments(itemFactors, gram, history));
  }

  /** @internal */
  protected foldSync({ itemFactors, gram }: FittedAls<U, I>, history: HistoryRows): Handle {
    return native.alsSolveSync(...this.#foldArguments(itemFactors, gram, history));
  }

  #foldArguments(itemFactors: Tensor<'float32'>, gram: Tensor<'float32'>, history: HistoryRows) {
    const fixed = placed(itemFactors, this.device).handle;
    const row = historyMatrix(history, itemFactors.shape[0]!);
    return [row, fixed, placed(gram, this.device).handle, undefined, this.options] as const;
  }

  /** @internal */
  protected override expectKnown(state: FittedAls<U, I>, side: 'user' | 'item', row: number): void {
    expectInteractions('ALS', state, side, row);
  }
}

async function complete<U extends Id, I extends Id>(
  { users, items, seen }: Fitted<U, I>,
  rows: FactorRows,
  loss: readonly number[],
  signal: AbortSignal | undefined,
): Promise<FittedAls<U, I>> {
  const gram = await runJob('long', { signal }, (control) => native.alsGram(control, rows.items.handle));
  const { emptyUsers, emptyItems } = await stats(seen, signal);
  const factors = { userFactors: rows.users, itemFactors: rows.items, gram: new Tensor<'float32'>(gram) };
  return { users, items, seen, ...factors, emptyUsers, emptyItems, loss };
}

function checkOptions(options: ALSOptions): Required<ALSOptions> {
  knownOptions(options, [
    'factors',
    'objective',
    'unobservedWeight',
    'alpha',
    'regularization',
    'regularizationForm',
    'regularizationExponent',
    'solver',
    'cgSteps',
    'blockSize',
    'iterations',
    'initStd',
    'seed',
    'computeLoss',
    'device',
    'deviceBytes',
  ]);
  const objective = oneOf('objective', options.objective ?? 'ials', ['ials', 'hkv'] as const);
  const hkv = objective === 'hkv';
  const form = options.regularizationForm ?? (hkv ? 'constant' : 'perEntry');
  return {
    factors: integer('factors', options.factors ?? 64, 1, 4096),
    objective,
    unobservedWeight: finite('unobservedWeight', options.unobservedWeight ?? (hkv ? 1 : 0.1), 0),
    alpha: finite('alpha', options.alpha ?? (hkv ? 40 : 1), 0),
    regularization: finite('regularization', options.regularization ?? (hkv ? 0.01 : 0.003), 0),
    regularizationForm: oneOf('regularizationForm', form, ['constant', 'perEntry'] as const),
    regularizationExponent: finite('regularizationExponent', options.regularizationExponent ?? 1, 0),
    solver: oneOf('solver', options.solver ?? 'cholesky', ['cholesky', 'cg', 'subspace'] as const),
    cgSteps: integer('cgSteps', options.cgSteps ?? 3, 1, 10000),
    blockSize: integer('blockSize', options.blockSize ?? 128, 1, 4096),
    iterations: integer('iterations', options.iterations ?? 16, 1),
    initStd: finite('initStd', options.initStd ?? 0.1, 0),
    seed: integer('seed', options.seed ?? 42, 0),
    computeLoss: boolean('computeLoss', options.computeLoss ?? false),
    device: deviceName(options.device ?? 'cpu'),
    deviceBytes: integer('deviceBytes', options.deviceBytes ?? 0, 0),
  };
}
