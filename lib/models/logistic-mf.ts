import { deviceName, finite, integer, knownOptions } from '../check.js';
import type { Id } from '../data/ids.js';
import { runJob } from '../job.js';
import { native } from '../native.js';
import type { Control, Handle } from '../native-ops.js';
import { full, Tensor } from '../tensor.js';
import { type Empty, type ExplainOptions, type Explanation, explainByHistory } from './explain.js';
import type { FittedFactors } from './factor-model.js';
import { type HistoryRows, historyMatrix } from './history.js';
import { LearnedModel } from './learned-model.js';
import { lent } from './lent.js';
import { type Fittable, type Fitted, stats, type Visitor } from './model.js';
import { column, type FactorRows, partsOf, type TouchedRows } from './partial-fit.js';
import { type LoadOptions, readModel, restored } from './persist.js';
import type { FitOptions } from './warm-start.js';

/** Options of LogisticMF. */
export interface LogisticMFOptions {
  /** Length of the vectors, 1 to 4096; 64 unless given. */
  factors?: number;
  /** Sweeps over items and users; 60 unless given. */
  iterations?: number;
  /**
   * η of Adagrad, at least 0; 0.1 unless given: with 1 the vectors of large data swing and learn nothing, with 0.03 they take
   * hundreds of sweeps.
   */
  learningRate?: number;
  /** λ, at least 0; 4 unless given. The fewer interactions a row has, the smaller it should be. */
  regularization?: number;
  /** α, the weight of one unit of value, at least 0; 1 unless given. */
  alpha?: number;
  /** Negatives drawn for each interaction in each sweep, 0 to 1024; 5 unless given. */
  negatives?: number;
  /** Vectors start as N(0, initStd / √factors), biases at 0; 0.1 unless given. */
  initStd?: number;
  /** Same seed, same bytes, at any thread count; 42 unless given. */
  seed?: number;
  /** Where the model computes; 'cpu' unless given: see `device()` for the names, docs/gpu.md for what stays on the CPU. */
  device?: string;
  /**
   * Bytes of the GPU's memory that `fit` may take: what is free there unless given, or 0. Interactions that do not fit
   * beside the vectors stream through in blocks of rows, with the same results.
   */
  deviceBytes?: number;
}

/** A fit: `scoringUsers` are the rows [x_u, b_u, 1], `scoringItems` [y_i, 1, b_i]. @internal */
interface FittedLogisticMf<U extends Id, I extends Id> extends FittedFactors<U, I>, Empty {
  readonly scoringUsers: Tensor<'float32'>;
  readonly scoringItems: Tensor<'float32'>;
  readonly userBiases: Tensor<'float32'>;
  readonly itemBiases: Tensor<'float32'>;
}

const shapes = {
  user_factors: (users: number, _items: number, options: LogisticMFOptions) => [users, options.factors ?? 0],
  item_factors: (_users: number, items: number, options: LogisticMFOptions) => [items, options.factors ?? 0],
  user_biases: (users: number) => [users, 1],
  item_biases: (_users: number, items: number) => [items, 1],
};

/**
 * Logistic matrix factorization for implicit feedback: the score s_ui = x_u·y_i + b_u + b_i is the log-odds that user u
 * chooses item i. Johnson, "Logistic matrix factorization for implicit feedback data", NIPS 2014 workshop on distributed
 * machine learning and matrix computations.
 *
 * Climbs Σ α r_ui s_ui - (1 + α r_ui) ln(1 + e^s_ui) - λ/2 (|x_u|² + |y_i|² + b_u² + b_i²), r_ui being the value of an
 * interaction, by full steps of Adagrad: all items with the users fixed, then all users with the items fixed. Of the cells
 * without an interaction (r_ui = 0), a step takes `negatives` for each interaction of its row, drawn uniformly and never
 * the row's own (such a draw is repeated, 16 draws at most, or else left out), each with weight 1. So the odds are those
 * against the drawn negatives, not against the whole catalogue; the order of the items is what counts.
 *
 * A history is folded in, and `partialFit` solves rows, by as many steps of the same kind from zero, the other side fixed.
 * Users without interactions get zero vectors, and so the items by bias.
 *
 * @example
 * const model = await new LogisticMF({ factors: 32 }).fit(plays);
 * await model.recommend('ann', { k: 5 });
 */
export class LogisticMF<U extends Id = Id, I extends Id = Id> extends LearnedModel<U, I, FittedLogisticMf<U, I>> {
  readonly options: Readonly<Required<LogisticMFOptions>>;

  /** @throws ERR_ARGUMENT, ERR_RANGE */
  constructor(options: LogisticMFOptions = {}) {
    super();
    this.options = Object.freeze(checkOptions(options));
  }

  /**
   * Learns from scratch, or from the last fit with `warmStart` (Adagrad's sums start anew). The model answers from its
   * last fit until this one is complete; an abort or a failure leaves that in place. `onProgress` counts sweeps, in halves.
   * @throws ERR_VALUE for no interactions, a negative weight, or a learning rate with which the vectors grow beyond
   * float32; ERR_BUSY while another fit of this model runs; ERR_NOT_FITTED for a warm start without a fit
   */
  fit(interactions: Fittable<U, I>, options: FitOptions = {}): Promise<this> {
    return this.replace(async (previous) => {
      const { data, byItem, users, items } = await this.begin(previous, interactions, options);
      const { signal } = options;
      const { factors } = this.options;
      const start =
        users &&
        items &&
        (await runJob('long', { signal }, async (control) => ({
          userFactors: await native.takeColumns(control, users, 0, factors),
          itemFactors: await native.takeColumns(control, items, 0, factors),
          userBiases: await column(control, users, factors),
          itemBiases: await column(control, items, factors + 1),
        })));
      const found = await runJob('long', options, (control) =>
        native.logisticMfFit(control, data.seen.handles, byItem, start, this.options),
      );
      const rows = await runJob('long', { signal }, (control) => scoring(control, found));
      return complete(data, rows, signal);
    }, options);
  }

  /**
   * Which items of a history carry the score of an item. What every step of fold-in adds to the vector is a sum over the
   * interactions, each with the negatives that were drawn for it, so the vector is one, and so is the score; the baseline
   * is the item's bias. After Pruthi, Liu, Sundararajan, Kale, "Estimating training data influence by tracing gradient
   * descent", NeurIPS 2020; exact here, because the items do not move meanwhile.
   *
   * It accounts for the score that `recommend` gives to `{ history }`. The vector of a user of the fit was found while the items
   * moved: theirs is near, but not the same.
   *
   * @param who a user of the fit, or `{ history }` of somebody who is not among them
   * @throws ERR_NOT_FITTED, ERR_UNKNOWN_ID, ERR_RANGE; ERR_VALUE for a user without interactions
   */
  async explain(who: U | Visitor<I>, item: I, options: ExplainOptions = {}): Promise<Explanation<I>> {
    const state = this.state;
    const { itemFactors, itemBiases } = state;
    return explainByHistory('LogisticMF', state, who, item, options, ({ matrix }, target, control) =>
      native.logisticMfExplain(control, matrix, itemFactors.handle, itemBiases.handle, target, this.options),
    );
  }

  /** The users' biases, float32 [users]. @throws ERR_NOT_FITTED */
  get userBiases(): Tensor<'float32'> {
    return lent(this.state.userBiases);
  }

  /** The items' biases, float32 [items]. @throws ERR_NOT_FITTED */
  get itemBiases(): Tensor<'float32'> {
    return lent(this.state.itemBiases);
  }

  /** Reads what `save` wrote: the same answers, bit for bit. @throws ERR_IO, ERR_FORMAT */
  static async load<U extends Id = Id, I extends Id = Id>(
    path: string,
    options: LoadOptions = {},
  ): Promise<LogisticMF<U, I>> {
    const file = await readModel<U, I, LogisticMFOptions, keyof typeof shapes>(path, 'logistic-mf', shapes, options);
    const model = restored(path, () => new LogisticMF<U, I>(file.options));
    const { user_factors, item_factors, user_biases, item_biases } = Object.fromEntries(file.tensors);
    return model.replace(async () => {
      const rows = await runJob('long', { signal: options.signal }, (control) =>
        scoring(control, {
          userFactors: user_factors!.handle,
          itemFactors: item_factors!.handle,
          userBiases: user_biases!.reshape([file.users.size]).handle,
          itemBiases: item_biases!.reshape([file.items.size]).handle,
        }),
      );
      return complete(file, rows, options.signal);
    });
  }

  #foldArguments({ itemFactors, itemBiases }: FittedLogisticMf<U, I>, history: HistoryRows) {
    const row = historyMatrix(history, itemFactors.shape[0]!);
    return [row, itemFactors.handle, itemBiases.handle, this.options] as const;
  }

  /** @internal */
  protected async solve(_state: FittedLogisticMf<U, I>, touched: TouchedRows, control: Control): Promise<Handle> {
    const { factors } = this.options;
    const users = touched.side === 'users';
    const fixed = users ? touched.items : touched.users;
    const vectors = await native.takeColumns(control, fixed.handle, 0, factors);
    const biases = await column(control, fixed.handle, users ? factors + 1 : factors);
    const found = await native.logisticMfFold(control, touched.matrix, vectors, biases, this.options);
    const ones = full([touched.at.length], { value: 1 }).handle;
    if (users) return native.appendColumns(control, found, [ones]);
    const solved = await native.takeColumns(control, found, 0, factors);
    return native.appendColumns(control, solved, [ones, await column(control, found, factors)]);
  }

  /** @internal */
  protected withRows(
    _state: FittedLogisticMf<U, I>,
    data: Fitted<U, I>,
    rows: FactorRows,
    signal: AbortSignal | undefined,
  ): Promise<FittedLogisticMf<U, I>> {
    return complete(data, rows, signal);
  }

  /** @internal */
  protected override freshRow(state: FittedLogisticMf<U, I>, side: keyof FactorRows): Float32Array {
    const { factors } = this.options;
    const row = new Float32Array(factors + 2);
    row[side === 'users' ? factors + 1 : factors] = 1;
    // Biases are negative where few choose an item: with 0 one that nobody knows would stand before them all.
    if (side === 'items') row[factors + 1] = state.itemBiases.dataSync().reduce((least, b) => Math.min(least, b), 0);
    return row;
  }

  /** @internal */
  protected saved(state: FittedLogisticMf<U, I>) {
    const tensors: (readonly [string, Tensor])[] = [
      ['user_factors', state.userFactors],
      ['item_factors', state.itemFactors],
      ['user_biases', state.userBiases.reshape([state.users.size, 1])],
      ['item_biases', state.itemBiases.reshape([state.items.size, 1])],
    ];
    return { model: 'logistic-mf', tensors };
  }

  /** @internal */
  protected async fold(state: FittedLogisticMf<U, I>, history: HistoryRows, control: Control): Promise<Handle> {
    const vector = await native.logisticMfFold(control, ...this.#foldArguments(state, history));
    return native.appendColumns(control, vector, [full([1], { value: 1 }).handle]);
  }

  /** @internal */
  protected foldSync(state: FittedLogisticMf<U, I>, history: HistoryRows): Handle {
    const vector = native.logisticMfFoldSync(...this.#foldArguments(state, history));
    return native.appendColumnsSync(vector, [full([1], { value: 1 }).handle]);
  }
}

/** The rows [x_u, b_u, 1] and [y_i, 1, b_i]. */
async function scoring(
  control: Control,
  learned: { userFactors: Handle; itemFactors: Handle; userBiases: Handle; itemBiases: Handle },
): Promise<FactorRows> {
  const { userFactors, itemFactors, userBiases, itemBiases } = learned;
  const ones = (biases: Handle) => full(native.tensorInfo(biases).shape, { value: 1 }).handle;
  const users = await native.appendColumns(control, userFactors, [userBiases, ones(userBiases)]);
  const items = await native.appendColumns(control, itemFactors, [ones(itemBiases), itemBiases]);
  return { users: new Tensor<'float32'>(users), items: new Tensor<'float32'>(items) };
}

async function complete<U extends Id, I extends Id>(
  { users, items, seen }: Fitted<U, I>,
  rows: FactorRows,
  signal: AbortSignal | undefined,
): Promise<FittedLogisticMf<U, I>> {
  const { emptyUsers, emptyItems } = await stats(seen, signal);
  return runJob('long', { signal }, async (control) => ({
    users,
    items,
    seen,
    emptyUsers,
    emptyItems,
    scoringUsers: rows.users,
    scoringItems: rows.items,
    ...(await partsOf(control, rows.users, rows.items)),
  }));
}

function checkOptions(options: LogisticMFOptions): Required<LogisticMFOptions> {
  knownOptions(options, [
    'factors',
    'iterations',
    'learningRate',
    'regularization',
    'alpha',
    'negatives',
    'initStd',
    'seed',
    'device',
    'deviceBytes',
  ]);
  return {
    factors: integer('factors', options.factors ?? 64, 1, 4096),
    iterations: integer('iterations', options.iterations ?? 60, 1, 2 ** 24 - 1),
    learningRate: finite('learningRate', options.learningRate ?? 0.1, 0),
    regularization: finite('regularization', options.regularization ?? 4, 0),
    alpha: finite('alpha', options.alpha ?? 1, 0),
    negatives: integer('negatives', options.negatives ?? 5, 0, 1024),
    initStd: finite('initStd', options.initStd ?? 0.1, 0),
    seed: integer('seed', options.seed ?? 42, 0),
    device: deviceName(options.device ?? 'cpu'),
    deviceBytes: integer('deviceBytes', options.deviceBytes ?? 0, 0),
  };
}
