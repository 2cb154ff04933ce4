import { boolean, finite, integer, knownOptions, oneOf, positive, string } from '../check.js';
import type { Id } from '../data/ids.js';
import { TopknotError } from '../errors.js';
import { type JobOptions, runJob } from '../job.js';
import { native } from '../native.js';
import type { Control, Handle } from '../native-ops.js';
import { full, Tensor } from '../tensor.js';
import { gatherRows } from './als-rows.js';
import { FactorModel, type FittedFactors } from './factor-model.js';
import { type History, type HistoryRows, historyMatrix } from './history.js';
import { checkedInteractions, type Fittable, type Fitted, stats } from './model.js';
import { readModel, restored } from './persist.js';

/** Options of BPR. */
export interface BprOptions {
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
  /** Where `fit` computes: 'cpu' unless given; 'cuda', 'cuda:1', ... or 'auto', see `device()`. All else is on the CPU. */
  device?: string;
}

export interface BprFitOptions extends JobOptions {
  /** Starts from the last fit: what it knew keeps its vector, by id; new rows start at random. */
  warmStart?: boolean | undefined;
}

/** @internal */
interface FittedBpr<U extends Id, I extends Id> extends FittedFactors<U, I> {
  readonly itemBiases: Tensor<'float32'> | undefined;
  readonly emptyUsers: ReadonlySet<number>;
  readonly loss: readonly number[];
}

/** What a fit or a file gives. @internal */
interface Learned {
  userFactors: Tensor<'float32'>;
  itemFactors: Tensor<'float32'>;
  itemBiases: Tensor<'float32'> | undefined;
  loss: readonly number[];
}

const shapes = {
  user_factors: (users: number, _items: number, options: BprOptions) => [users, options.factors ?? 0],
  item_factors: (_users: number, items: number, options: BprOptions) => [items, options.factors ?? 0],
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
 * Users without interactions get zero vectors: `recommend` gives them the items by bias, or throws ERR_VALUE where the
 * model has none.
 *
 * @example
 * const model = await new BPR({ factors: 64, negativeSampling: 'hard' }).fit(ratings);
 * await model.recommend('ann', { k: 5 });
 */
export class BPR<U extends Id = Id, I extends Id = Id> extends FactorModel<U, I, FittedBpr<U, I>> {
  readonly options: Readonly<Required<BprOptions>>;

  /** @throws ERR_ARGUMENT, ERR_RANGE */
  constructor(options: BprOptions = {}) {
    super();
    this.options = Object.freeze(checkOptions(options));
  }

  /**
   * Learns from scratch, or from the last fit with `warmStart`. The model answers from its last fit until this one is
   * complete; an abort or a failure leaves that in place. `onProgress` counts epochs.
   * @throws ERR_VALUE for no interactions, a negative weight, or a learning rate with which the vectors grow beyond
   * float32; ERR_BUSY while another fit of this model runs; ERR_NOT_FITTED for a warm start without a fit
   */
  fit(interactions: Fittable<U, I>, options: BprFitOptions = {}): Promise<this> {
    return this.replace(async (previous) => {
      knownOptions(options, ['warmStart', 'signal', 'onProgress']);
      const { signal } = options;
      const data = await checkedInteractions(interactions, options);
      const { factors } = this.options;
      const start = this.startOf(previous, options);
      const users = start && (await gatherRows(start.users, start.userFactors, data.users, factors, signal));
      const items = start && (await gatherRows(start.items, start.itemFactors, data.items, factors, signal));
      const column = start?.itemBiases?.reshape([start.items.size, 1]);
      const biases = column && new Tensor(await gatherRows(start!.items, column, data.items, 1, signal));
      const found = await runJob('long', options, (control) =>
        native.bprFit(
          control,
          data.seen.handles,
          users,
          items,
          biases?.reshape([data.items.size]).handle,
          this.options,
        ),
      );
      return this.#complete(
        data,
        {
          userFactors: new Tensor(found.userFactors),
          itemFactors: new Tensor(found.itemFactors),
          itemBiases: found.itemBiases && new Tensor(found.itemBiases),
          loss: found.loss,
        },
        signal,
      );
    }, options);
  }

  /**
   * The vector, float32 [factors], of somebody with this history: what the epochs of a fit make of a vector of zeros
   * with the items as they are. Weights are not read.
   * @throws ERR_NOT_FITTED, ERR_UNKNOWN_ID; ERR_VALUE for an empty history or a weight that is not positive
   */
  async foldIn(history: History<I>, options: JobOptions = {}): Promise<Float32Array> {
    return this.folded(history, options, (state, rows, control) =>
      native.bprFold(control, ...this.#foldArguments(state, rows)),
    );
  }

  /** The items' biases, float32 [items], where the option `biases` asked for them. @throws ERR_NOT_FITTED */
  get itemBiases(): Tensor<'float32'> | undefined {
    return this.state.itemBiases;
  }

  /** The mean of -ln σ(s_ui - s_uj) over each epoch's samples, where `computeLoss` asked for it. @throws ERR_NOT_FITTED */
  get loss(): readonly number[] {
    return this.state.loss;
  }

  /** Reads what `save` wrote: the same answers, bit for bit. @throws ERR_IO, ERR_FORMAT */
  static async load<U extends Id = Id, I extends Id = Id>(path: string, options: JobOptions = {}): Promise<BPR<U, I>> {
    const file = await readModel<U, I, BprOptions, keyof typeof shapes>(path, 'bpr', shapes, options);
    const model = restored(path, () => new BPR<U, I>(file.options));
    const { tensors } = model.options.biases
      ? await readModel<U, I, BprOptions, keyof typeof biasShapes>(path, 'bpr', biasShapes, options)
      : file;
    const { user_factors, item_factors, item_biases } = Object.fromEntries(tensors) as Record<
      string,
      Tensor<'float32'>
    >;
    const learned = {
      userFactors: user_factors!,
      itemFactors: item_factors!,
      itemBiases: item_biases?.reshape([file.items.size]),
      loss: [],
    };
    return model.replace(() => model.#complete(file, learned, options.signal));
  }

  async #complete(
    { users, items, seen }: Fitted<U, I>,
    learned: Learned,
    signal: AbortSignal | undefined,
  ): Promise<FittedBpr<U, I>> {
    const { userFactors, itemFactors, itemBiases } = learned;
    const { emptyUsers } = await stats(seen, signal);
    const state = { users, items, seen, emptyUsers, ...learned };
    if (!itemBiases) return state;
    const ones = full([users.size], { value: 1 });
    return runJob('long', { signal }, async (control) => ({
      ...state,
      scoringUsers: new Tensor(await native.appendColumns(control, userFactors.handle, [ones.handle])),
      scoringItems: new Tensor(await native.appendColumns(control, itemFactors.handle, [itemBiases.handle])),
    }));
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

function checkOptions(options: BprOptions): Required<BprOptions> {
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
    device: string('device', options.device ?? 'cpu'),
  };
}
