import { boolean, deviceName, finite, integer, knownOptions, oneOf, positive } from '../check.js';
import type { Id } from '../data/ids.js';
import { TopknotError } from '../errors.js';
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
import { column, type FactorRows, type TouchedRows } from './partial-fit.js';
import { type LoadOptions, readModel, restored } from './persist.js';
import type { FitOptions } from './warm-start.js';

/** Options of BPR. */
export interface BPROptions {
  /** Length of the vectors, 1 to 4096; 64 unless given. */
  factors?: number;
  /** Epochs: how often each interaction is taken up; 100 unless given. */
  iterations?: number;
  /** η, above 0; 0.05 unless given. */
  learningRate?: number;
  /** λ of the vectors and biases of each sample, at least 0; 0.01 unless given. */
  regularization?: number;
  /**
   * How the item j that the user has not chosen is drawn. 'uniform' unless given.
   * - 'uniform': all items alike
   * - 'popularity': by how many users chose them
   * - 'hard': the best-scored of `candidates` items drawn alike: dynamic negative sampling of Zhang, Chen, Wang, Yu,
   *   "Optimizing top-n collaborative filtering via dynamic negative item sampling", SIGIR 2013
   */
  negativeSampling?: 'uniform' | 'popularity' | 'hard';
  /** Of 'hard' sampling, 1 to 1024; 8 unless given. */
  candidates?: number;
  /** Whether items have a bias b_i beside their vector; false unless given. */
  biases?: boolean;
  /** Vectors start as N(0, initStd / √factors), biases at 0; 0.1 unless given. */
  initStd?: number;
  /** 42 unless given. */
  seed?: number;
  /**
   * Lets threads change the same item's vector at the same time, without locks, as in Niu, Recht, Ré, Wright,
   * "Hogwild!", NIPS 2011. **Racy: two fits with the same seed differ.** It keeps more threads busy where there are few
   * items, and negatives come from the whole catalogue at every step. false unless given: same seed, same bytes, at any
   * thread count.
   */
  hogwild?: boolean;
  /** Computes the mean loss of each epoch's samples, for `onProgress` and `loss`. */
  computeLoss?: boolean;
  /** Where the model computes; 'cpu' unless given: see `device()` for the names, docs/gpu.md for what stays on the CPU. */
  device?: string;
}

/** A fit: with biases, `scoringUsers` are the rows [x_u, 1], `scoringItems` [y_i, b_i]. @internal */
interface FittedBpr<U extends Id, I extends Id> extends FittedFactors<U, I>, Empty {
  readonly itemBiases: Tensor<'float32'> | undefined;
  readonly loss: readonly number[];
}

const shapes = {
  user_factors: (users: number, _items: number, options: BPROptions) => [users, options.factors ?? 0],
  item_factors: (_users: number, items: number, options: BPROptions) => [items, options.factors ?? 0],
};
const biasShapes = { ...shapes, item_biases: (_users: number, items: number) => [items, 1] };

/**
 * Bayesian personalized ranking: matrix factorization that learns, for each interaction (u, i) and an item j that u has
 * not chosen, to score i above j. Rendle, Freudenthaler, Gantner, Schmidt-Thieme, "BPR: Bayesian personalized ranking from
 * implicit feedback", UAI 2009.
 *
 * Stochastic gradient ascent on ln σ(s_ui - s_uj) - λ/2 (|x_u|² + |y_i|² + |y_j|² + b_i² + b_j²), with the score
 * s_ui = x_u·y_i + b_i. An epoch takes up every interaction once; how strong it is (its value) is not read. A negative is
 * never an item of the user's own: such a draw is repeated, 16 draws at most, and if all fail the interaction is passed
 * over until the next epoch.
 *
 * To use all threads and still give the same bytes at any number of them, an epoch deals users and items at random into P
 * groups each, P by the sizes of the data; tasks that run side by side share no group, and a negative comes from its
 * positive's group of items (at least 512, dealt anew in each epoch).
 *
 * A history is folded in by as many epochs as a fit has, from a vector of zeros, with the items as they are; weights are not
 * read. `partialFit` (dear for popular items: as many steps on one thread as their users in all epochs) solves users so, and items likewise: their users against drawn negatives, and as often as an epoch is
 * expected to draw the item as a negative, against interactions of users who have not chosen it. After Rendle,
 * Schmidt-Thieme, "Online-updating regularized kernel matrix factorization models for large-scale recommender systems",
 * RecSys 2008.
 *
 * Users without interactions get zero vectors: `recommend` gives them the items by bias, or throws ERR_VALUE where the
 * model has none.
 *
 * @example
 * const model = await new BPR({ factors: 64, negativeSampling: 'hard' }).fit(ratings);
 * await model.recommend('ann', { k: 5 });
 */
export class BPR<U extends Id = Id, I extends Id = Id> extends LearnedModel<U, I, FittedBpr<U, I>> {
  readonly options: Readonly<Required<BPROptions>>;

  /** @throws ERR_ARGUMENT, ERR_RANGE */
  constructor(options: BPROptions = {}) {
    super();
    this.options = Object.freeze(checkOptions(options));
  }

  /**
   * Learns from scratch, or from the last fit with `warmStart`. The model answers from its last fit until this one is
   * complete; an abort or a failure leaves that in place. `onProgress` counts epochs.
   * @throws ERR_VALUE for no interactions, a negative weight, or a learning rate with which the vectors grow beyond
   * float32; ERR_BUSY while another fit of this model runs; ERR_NOT_FITTED for a warm start without a fit
   */
  fit(interactions: Fittable<U, I>, options: FitOptions = {}): Promise<this> {
    return this.replace(async (previous) => {
      const { data, users, items } = await this.begin(previous, interactions, options);
      const { signal } = options;
      const start =
        users && items && (await runJob('long', { signal }, (control) => this.#parts({ users, items }, control)));
      const found = await runJob('long', options, (control) =>
        native.bprFit(control, data.seen.handles, start?.users, start?.items, start?.biases, this.options),
      );
      return this.#complete(data, await this.#scoring(found, signal), found.loss, signal);
    }, options);
  }

  /**
   * Which items of a history carry the score of an item. A step of fold-in adds to the vector what a chosen item differs from
   * the negative that was drawn beside it, and shrinks what was there, so the vector is a sum over the interactions, and so
   * is the score; the baseline is the item's bias. After Pruthi, Liu, Sundararajan, Kale, "Estimating training data influence
   * by tracing gradient descent", NeurIPS 2020; exact here, because the items do not move meanwhile.
   *
   * It accounts for the score that `recommend` gives to `{ history }`. The vector of a user of the fit was found while the items
   * moved: theirs is near, but not the same.
   *
   * @param who a user of the fit, or `{ history }` of somebody who is not among them
   * @throws ERR_NOT_FITTED, ERR_UNKNOWN_ID, ERR_RANGE; ERR_VALUE for a user without interactions
   */
  async explain(who: U | Visitor<I>, item: I, options: ExplainOptions = {}): Promise<Explanation<I>> {
    const state = this.state;
    const { itemFactors, itemBiases, seen } = state;
    return explainByHistory('BPR', state, who, item, options, ({ matrix }, target, control) =>
      native.bprExplain(control, matrix, itemFactors.handle, itemBiases?.handle, seen.handles, target, this.options),
    );
  }

  /** The items' biases, float32 [items], where the option `biases` asked for them. @throws ERR_NOT_FITTED */
  get itemBiases(): Tensor<'float32'> | undefined {
    return this.state.itemBiases && lent(this.state.itemBiases);
  }

  /** The mean of -ln σ(s_ui - s_uj) over each epoch's samples, where `computeLoss` asked for it. @throws ERR_NOT_FITTED */
  get loss(): readonly number[] {
    return this.state.loss;
  }

  /** Reads what `save` wrote: the same answers, bit for bit. @throws ERR_IO, ERR_FORMAT */
  static async load<U extends Id = Id, I extends Id = Id>(path: string, options: LoadOptions = {}): Promise<BPR<U, I>> {
    const file = await readModel<U, I, BPROptions, keyof typeof shapes>(path, 'bpr', shapes, options);
    const model = restored(path, () => new BPR<U, I>(file.options));
    const { tensors } = model.options.biases
      ? await readModel<U, I, BPROptions, keyof typeof biasShapes>(path, 'bpr', biasShapes, options)
      : file;
    const { user_factors, item_factors, item_biases } = Object.fromEntries(tensors) as Record<
      string,
      Tensor<'float32'>
    >;
    return model.replace(async () => {
      const rows = await model.#scoring(
        {
          userFactors: user_factors!.handle,
          itemFactors: item_factors!.handle,
          itemBiases: item_biases?.reshape([file.items.size]).handle,
        },
        options.signal,
      );
      return model.#complete(file, rows, [], options.signal);
    });
  }

  /** Vectors and biases from the rows of a fit. */
  async #parts(rows: { users: Handle; items: Handle }, control: Control) {
    const { biases, factors } = this.options;
    if (!biases) return { ...rows, biases: undefined };
    return {
      users: await native.takeColumns(control, rows.users, 0, factors),
      items: await native.takeColumns(control, rows.items, 0, factors),
      biases: await column(control, rows.items, factors),
    };
  }

  /** The rows of a fit from vectors and biases. */
  async #scoring(
    learned: { userFactors: Handle; itemFactors: Handle; itemBiases?: Handle | undefined },
    signal: AbortSignal | undefined,
  ): Promise<FactorRows> {
    const { userFactors, itemFactors, itemBiases } = learned;
    if (!itemBiases) return { users: new Tensor<'float32'>(userFactors), items: new Tensor<'float32'>(itemFactors) };
    const ones = full([native.tensorInfo(userFactors).shape[0]!], { value: 1 }).handle;
    return runJob('long', { signal }, async (control) => ({
      users: new Tensor<'float32'>(await native.appendColumns(control, userFactors, [ones])),
      items: new Tensor<'float32'>(await native.appendColumns(control, itemFactors, [itemBiases])),
    }));
  }

  async #complete(
    { users, items, seen }: Fitted<U, I>,
    rows: FactorRows,
    loss: readonly number[],
    signal: AbortSignal | undefined,
  ): Promise<FittedBpr<U, I>> {
    const { emptyUsers, emptyItems } = await stats(seen, signal);
    const state = { users, items, seen, emptyUsers, emptyItems, loss };
    if (!this.options.biases)
      return { ...state, userFactors: rows.users, itemFactors: rows.items, itemBiases: undefined };
    const handles = { users: rows.users.handle, items: rows.items.handle };
    const parts = await runJob('long', { signal }, (control) => this.#parts(handles, control));
    return {
      ...state,
      userFactors: new Tensor<'float32'>(parts.users),
      itemFactors: new Tensor<'float32'>(parts.items),
      itemBiases: new Tensor<'float32'>(parts.biases!),
      scoringUsers: rows.users,
      scoringItems: rows.items,
    };
  }

  /** @internal */
  protected async solve(_state: FittedBpr<U, I>, touched: TouchedRows, control: Control): Promise<Handle> {
    const { side, at, matrix, seen } = touched;
    const handles = { users: touched.users.handle, items: touched.items.handle };
    const { users, items, biases } = await this.#parts(handles, control);
    if (side === 'items') return native.bprItems(control, matrix, at, users, items, biases, seen.handles, this.options);
    const vectors = await native.bprFold(control, matrix, items, biases, seen.handles, this.options);
    return biases ? native.appendColumns(control, vectors, [full([at.length], { value: 1 }).handle]) : vectors;
  }

  /** @internal */
  protected withRows(
    _state: FittedBpr<U, I>,
    data: Fitted<U, I>,
    rows: FactorRows,
    signal: AbortSignal | undefined,
  ): Promise<FittedBpr<U, I>> {
    return this.#complete(data, rows, [], signal);
  }

  /** @internal */
  protected override freshRow(_state: FittedBpr<U, I>, side: keyof FactorRows): Float32Array {
    const { biases, factors } = this.options;
    return new Float32Array(biases ? factors + 1 : factors).fill(side === 'users' ? 1 : 0, factors);
  }

  #foldArguments({ seen, itemFactors, itemBiases }: FittedBpr<U, I>, history: HistoryRows) {
    const row = historyMatrix(history, itemFactors.shape[0]!);
    return [row, itemFactors.handle, itemBiases?.handle, seen.handles, this.options] as const;
  }

  /** @internal */
  protected saved(state: FittedBpr<U, I>) {
    const tensors: (readonly [string, Tensor])[] = [
      ['user_factors', state.userFactors],
      ['item_factors', state.itemFactors],
    ];
    if (state.itemBiases) tensors.push(['item_biases', state.itemBiases.reshape([state.items.size, 1])]);
    return { model: 'bpr', tensors };
  }

  /** @internal */
  protected async fold(state: FittedBpr<U, I>, history: HistoryRows, control: Control): Promise<Handle> {
    const vector = await native.bprFold(control, ...this.#foldArguments(state, history));
    return state.itemBiases ? native.appendColumns(control, vector, [full([1], { value: 1 }).handle]) : vector;
  }

  /** @internal */
  protected foldSync(state: FittedBpr<U, I>, history: HistoryRows): Handle {
    const vector = native.bprFoldSync(...this.#foldArguments(state, history));
    return state.itemBiases ? native.appendColumnsSync(vector, [full([1], { value: 1 }).handle]) : vector;
  }

  /** @internal */
  protected override expectKnown(state: FittedBpr<U, I>, side: 'user' | 'item', row: number): void {
    if (side === 'item' || state.itemBiases || !state.emptyUsers.has(row)) return;
    throw new TopknotError(
      'ERR_VALUE',
      `user: '${state.users.at(row)}' has no interactions in the fit, so BPR knows nothing of them: ` +
        'recommend by { history }, or by Popularity',
    );
  }
}

function checkOptions(options: BPROptions): Required<BPROptions> {
  knownOptions(options, [
    'factors',
    'iterations',
    'learningRate',
    'regularization',
    'negativeSampling',
    'candidates',
    'biases',
    'initStd',
    'seed',
    'hogwild',
    'computeLoss',
    'device',
  ]);
  const sampling = options.negativeSampling ?? 'uniform';
  return {
    factors: integer('factors', options.factors ?? 64, 1, 4096),
    iterations: integer('iterations', options.iterations ?? 100, 1, 2 ** 31 - 1),
    learningRate: positive('learningRate', options.learningRate ?? 0.05),
    regularization: finite('regularization', options.regularization ?? 0.01, 0),
    negativeSampling: oneOf('negativeSampling', sampling, ['uniform', 'popularity', 'hard'] as const),
    candidates: integer('candidates', options.candidates ?? 8, 1, 1024),
    biases: boolean('biases', options.biases ?? false),
    initStd: finite('initStd', options.initStd ?? 0.1, 0),
    seed: integer('seed', options.seed ?? 42, 0),
    hogwild: boolean('hogwild', options.hogwild ?? false),
    computeLoss: boolean('computeLoss', options.computeLoss ?? false),
    device: deviceName(options.device ?? 'cpu'),
  };
}
