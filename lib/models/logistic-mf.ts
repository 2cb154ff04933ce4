import { finite, integer, knownOptions, string } from '../check.js';
import type { Id, Ids } from '../data/ids.js';
import { type JobOptions, runJob } from '../job.js';
import { native } from '../native.js';
import type { Control, Handle } from '../native-ops.js';
import { full, Tensor } from '../tensor.js';
import { gatherRows } from './als-rows.js';
import { FactorModel, type FittedFactors } from './factor-model.js';
import { type History, type HistoryRows, historyMatrix } from './history.js';
import { checkedInteractions, type Fittable, type Fitted } from './model.js';
import { readModel, restored } from './persist.js';

/** Options of LogisticMF. */
export interface LogisticMfOptions {
  /** Length of the vectors, 1 to 4096; 64 unless given. */
  factors?: number;
  /** Sweeps over items and users; 40 unless given. */
  iterations?: number;
  /** η of Adagrad, at least 0; 0.3 unless given: with 1 the vectors of large data swing and learn nothing. */
  learningRate?: number;
  /** λ, at least 0; 2 unless given. */
  regularization?: number;
  /** α, the weight of one unit of value, at least 0; 1 unless given. */
  alpha?: number;
  /** Negatives drawn for each interaction in each sweep, 0 to 1024; 5 unless given. */
  negatives?: number;
  /** Vectors start as N(0, initStd / √factors), biases at 0; 0.1 unless given. */
  initStd?: number;
  /** Same seed, same bytes, at any thread count; 42 unless given. */
  seed?: number;
  /** Where `fit` computes: 'cpu' unless given; 'cuda', 'cuda:1', ... or 'auto', see `device()`. All else is on the CPU. */
  device?: string;
  /**
   * Bytes of the GPU's memory that `fit` may take: what is free there unless given, or 0. Interactions that do not fit
   * beside the vectors stream through in blocks of rows, with the same results.
   */
  deviceBytes?: number;
}

export interface LogisticMfFitOptions extends JobOptions {
  /** Starts from the last fit: what it knew keeps its vector and bias, by id; new rows start at random. */
  warmStart?: boolean | undefined;
}

/** @internal */
interface FittedLogisticMf<U extends Id, I extends Id> extends FittedFactors<U, I> {
  readonly userBiases: Tensor<'float32'>;
  readonly itemBiases: Tensor<'float32'>;
}

type Learned = Pick<FittedLogisticMf<Id, Id>, 'userFactors' | 'itemFactors' | 'userBiases' | 'itemBiases'>;

const shapes = {
  user_factors: (users: number, _items: number, options: LogisticMfOptions) => [users, options.factors ?? 0],
  item_factors: (_users: number, items: number, options: LogisticMfOptions) => [items, options.factors ?? 0],
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
 * Users without interactions get zero vectors, and so the items by bias.
 *
 * @example
 * const model = await new LogisticMF({ factors: 32 }).fit(plays);
 * await model.recommend('ann', { k: 5 });
 */
export class LogisticMF<U extends Id = Id, I extends Id = Id> extends FactorModel<U, I, FittedLogisticMf<U, I>> {
  readonly options: Readonly<Required<LogisticMfOptions>>;

  /** @throws ERR_ARGUMENT, ERR_RANGE */
  constructor(options: LogisticMfOptions = {}) {
    super();
    this.options = Object.freeze(checkOptions(options));
  }

  /**
   * Learns from scratch, or from the last fit with `warmStart` (Adagrad's sums start anew). The model answers from its
   * last fit until this one is complete; an abort or a failure leaves that in place. `onProgress` counts sweeps, in halves.
   * @throws ERR_VALUE for no interactions, a negative weight, or a learning rate with which the vectors grow beyond
   * float32; ERR_BUSY while another fit of this model runs; ERR_NOT_FITTED for a warm start without a fit
   */
  fit(interactions: Fittable<U, I>, options: LogisticMfFitOptions = {}): Promise<this> {
    return this.replace(async (previous) => {
      knownOptions(options, ['warmStart', 'signal', 'onProgress']);
      const { signal } = options;
      const data = await checkedInteractions(interactions, options);
      const from = this.startOf(previous, options);
      const start = from && (await this.#start(from, data, signal));
      const byItem = await runJob('long', { signal }, (control) => native.csrTranspose(control, data.seen.handles));
      const found = await runJob('long', options, (control) =>
        native.logisticMfFit(control, data.seen.handles, byItem, start, this.options),
      );
      const learned = {
        userFactors: new Tensor<'float32'>(found.userFactors),
        itemFactors: new Tensor<'float32'>(found.itemFactors),
        userBiases: new Tensor<'float32'>(found.userBiases),
        itemBiases: new Tensor<'float32'>(found.itemBiases),
      };
      return this.#complete(data, learned, signal);
    }, options);
  }

  /**
   * The vector, float32 [factors], of somebody with this history: `iterations` steps from zero with the items as they are.
   * @throws ERR_NOT_FITTED, ERR_UNKNOWN_ID; ERR_VALUE for an empty history or a weight that is not positive
   */
  async foldIn(history: History<I>, options: JobOptions = {}): Promise<Float32Array> {
    const found = await this.folded(history, options, (state, rows, control) =>
      native.logisticMfFold(control, ...this.#foldArguments(state, rows)),
    );
    return found.slice(0, this.options.factors);
  }

  /** The users' biases, float32 [users]. @throws ERR_NOT_FITTED */
  get userBiases(): Tensor<'float32'> {
    return this.state.userBiases;
  }

  /** The items' biases, float32 [items]. @throws ERR_NOT_FITTED */
  get itemBiases(): Tensor<'float32'> {
    return this.state.itemBiases;
  }

  /** Reads what `save` wrote: the same answers, bit for bit. @throws ERR_IO, ERR_FORMAT */
  static async load<U extends Id = Id, I extends Id = Id>(
    path: string,
    options: JobOptions = {},
  ): Promise<LogisticMF<U, I>> {
    const file = await readModel<U, I, LogisticMfOptions, keyof typeof shapes>(path, 'logistic-mf', shapes, options);
    const model = restored(path, () => new LogisticMF<U, I>(file.options));
    const { user_factors, item_factors, user_biases, item_biases } = Object.fromEntries(file.tensors);
    const learned = {
      userFactors: user_factors!,
      itemFactors: item_factors!,
      userBiases: user_biases!.reshape([file.users.size]),
      itemBiases: item_biases!.reshape([file.items.size]),
    };
    return model.replace(() => model.#complete(file, learned, options.signal));
  }

  async #start(from: FittedLogisticMf<U, I>, data: Fitted<U, I>, signal: AbortSignal | undefined) {
    const { factors } = this.options;
    const biases = async <T extends Id>(known: Ids<T>, of: Tensor<'float32'>, ids: Ids<T>) => {
      const column = await gatherRows(known, of.reshape([known.size, 1]), ids, 1, signal);
      return new Tensor(column).reshape([ids.size]).handle;
    };
    return {
      userFactors: await gatherRows(from.users, from.userFactors, data.users, factors, signal),
      itemFactors: await gatherRows(from.items, from.itemFactors, data.items, factors, signal),
      userBiases: await biases(from.users, from.userBiases, data.users),
      itemBiases: await biases(from.items, from.itemBiases, data.items),
    };
  }

  /** Scores are inner products of (x_u, b_u, 1) and (y_i, 1, b_i). */
  async #complete(
    { users, items, seen }: Fitted<U, I>,
    learned: Learned,
    signal: AbortSignal | undefined,
  ): Promise<FittedLogisticMf<U, I>> {
    const ones = (count: number) => full([count], { value: 1 }).handle;
    const { userFactors, itemFactors, userBiases, itemBiases } = learned;
    return runJob('long', { signal }, async (control) => {
      const userColumns = [userBiases.handle, ones(users.size)];
      const itemColumns = [ones(items.size), itemBiases.handle];
      return {
        users,
        items,
        seen,
        ...learned,
        scoringUsers: new Tensor<'float32'>(await native.appendColumns(control, userFactors.handle, userColumns)),
        scoringItems: new Tensor<'float32'>(await native.appendColumns(control, itemFactors.handle, itemColumns)),
      };
    });
  }

  #foldArguments({ itemFactors, itemBiases }: FittedLogisticMf<U, I>, history: HistoryRows) {
    const row = historyMatrix(history, itemFactors.shape[0]!);
    return [row, itemFactors.handle, itemBiases.handle, this.options] as const;
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

function checkOptions(options: LogisticMfOptions): Required<LogisticMfOptions> {
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
    iterations: integer('iterations', options.iterations ?? 40, 1, 2 ** 24 - 1),
    learningRate: finite('learningRate', options.learningRate ?? 0.3, 0),
    regularization: finite('regularization', options.regularization ?? 2, 0),
    alpha: finite('alpha', options.alpha ?? 1, 0),
    negatives: integer('negatives', options.negatives ?? 5, 0, 1024),
    initStd: finite('initStd', options.initStd ?? 0.1, 0),
    seed: integer('seed', options.seed ?? 42, 0),
    device: string('device', options.device ?? 'cpu'),
    deviceBytes: integer('deviceBytes', options.deviceBytes ?? 0, 0),
  };
}
