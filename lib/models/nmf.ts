import { boolean, deviceName, finite, integer, knownOptions, oneOf } from '../check.js';
import type { Id } from '../data/ids.js';
import { runJob } from '../job.js';
import { native } from '../native.js';
import type { Control, Handle } from '../native-ops.js';
import { Tensor } from '../tensor.js';
import { type Empty, expectInteractions } from './explain.js';
import type { FittedFactors } from './factor-model.js';
import { type HistoryRows, historyMatrix } from './history.js';
import { LearnedModel } from './learned-model.js';
import { type Fittable, type Fitted, stats } from './model.js';
import type { FactorRows, TouchedRows } from './partial-fit.js';
import { type LoadOptions, readModel, restored } from './persist.js';
import { placed } from './placed.js';
import type { FitOptions } from './warm-start.js';

/** Options of NMF. With w_u and h_i the vectors, none of whose elements is negative, and x_ui the values: */
export interface NMFOptions {
  /** Length of the vectors, 1 to 4096; 16 unless given. */
  factors?: number;
  /**
   * What is minimised, beside the regularization; 'frobenius' unless given.
   * - 'frobenius': ½ Σ (x_ui - w_u·h_i)²
   * - 'kl': Σ x_ui ln(x_ui / w_u·h_i) - x_ui + w_u·h_i, the generalised Kullback-Leibler divergence
   */
  objective?: 'frobenius' | 'kl';
  /**
   * Over which cells: 'all', those without an interaction being 0 (implicit feedback), or the 'observed' ones alone
   * (ratings). 'all' unless given.
   */
  over?: 'all' | 'observed';
  /** λ of ½ λ |w_u|² and ½ λ |h_i|², at least 0; 0.01 unless given. */
  regularization?: number;
  /** 'constant': λ; 'perEntry': λ times the entries of the row. 'perEntry' unless given for 'observed', else 'constant'. */
  regularizationForm?: 'constant' | 'perEntry';
  /** Sweeps over items and users; 50 unless given. */
  iterations?: number;
  /** Same seed, same bytes, at any thread count; 42 unless given. */
  seed?: number;
  /** Computes the objective after each sweep, for `onProgress` and `loss`. */
  computeLoss?: boolean;
  /** Where the model computes; 'cpu' unless given: see `device()` for the names, docs/gpu.md for what stays on the CPU. */
  device?: string;
  /**
   * Bytes of the GPU's memory that `fit` may take: what is free there unless given, or 0. Interactions that do not fit
   * beside the vectors stream through in blocks of rows, with the same results.
   */
  deviceBytes?: number;
}

/** @internal */
interface FittedNmf<U extends Id, I extends Id> extends FittedFactors<U, I>, Empty {
  readonly loss: readonly number[];
}

const shapes = {
  user_factors: (users: number, _items: number, options: NMFOptions) => [users, options.factors ?? 0],
  item_factors: (_users: number, items: number, options: NMFOptions) => [items, options.factors ?? 0],
};

/**
 * Nonnegative matrix factorization by coordinate descent: parts that only add up, so that a factor can be read as a
 * topic. Cichocki, Phan, "Fast local algorithms for large scale nonnegative matrix and tensor factorizations", IEICE
 * Transactions 2009; for 'kl' Hsieh, Dhillon, "Fast coordinate descent methods with variable selection for non-negative
 * matrix factorization", KDD 2011. The objective never rises from sweep to sweep.
 */
export class NMF<U extends Id = Id, I extends Id = Id> extends LearnedModel<U, I, FittedNmf<U, I>> {
  readonly options: Readonly<Required<NMFOptions>>;

  /** @throws ERR_ARGUMENT, ERR_RANGE */
  constructor(options: NMFOptions = {}) {
    super();
    this.options = Object.freeze(checkOptions(options));
  }

  /**
   * Learns from scratch, or from the last fit with `warmStart`. `onProgress` counts sweeps.
   * @throws ERR_VALUE for no interactions or a negative value; ERR_BUSY while another fit of this model runs;
   * ERR_NOT_FITTED for a warm start without a fit
   */
  fit(interactions: Fittable<U, I>, options: FitOptions = {}): Promise<this> {
    return this.replace(async (previous) => {
      const { data, byItem, users, items } = await this.begin(previous, interactions, options);
      const found = await runJob('long', options, (control) =>
        native.nmfFit(control, data.seen.handles, byItem, users, items, this.#native()),
      );
      const rows = { users: new Tensor<'float32'>(found.userFactors), items: new Tensor<'float32'>(found.itemFactors) };
      return complete(data, rows, found.loss, options.signal);
    }, options);
  }

  /** The objective after each sweep of the last fit, where `computeLoss` asked for it. @throws ERR_NOT_FITTED */
  get loss(): readonly number[] {
    return this.state.loss;
  }

  /** Reads what `save` wrote: the same answers, bit for bit. @throws ERR_IO, ERR_FORMAT */
  static async load<U extends Id = Id, I extends Id = Id>(path: string, options: LoadOptions = {}): Promise<NMF<U, I>> {
    const file = await readModel<U, I, NMFOptions, keyof typeof shapes>(path, 'nmf', shapes, options);
    const model = restored(path, () => new NMF<U, I>(file.options));
    const { user_factors, item_factors } = Object.fromEntries(file.tensors);
    return model.replace(() => complete(file, { users: user_factors!, items: item_factors! }, [], options.signal));
  }

  /** @internal */
  protected solve(_state: FittedNmf<U, I>, { side, matrix, users, items }: TouchedRows, control: Control) {
    return native.nmfFold(
      control,
      matrix,
      placed(side === 'users' ? items : users, this.device).handle,
      this.#native(),
    );
  }

  /** @internal */
  protected withRows(
    _state: FittedNmf<U, I>,
    data: Fitted<U, I>,
    rows: FactorRows,
    signal: AbortSignal | undefined,
  ): Promise<FittedNmf<U, I>> {
    return complete(data, rows, [], signal);
  }

  #native() {
    const { regularizationForm, ...options } = this.options;
    return { ...options, perEntry: regularizationForm === 'perEntry' };
  }

  /** @internal */
  protected saved(state: FittedNmf<U, I>) {
    const tensors = [
      ['user_factors', state.userFactors],
      ['item_factors', state.itemFactors],
    ] as const;
    return { model: 'nmf', tensors };
  }

  /** @internal */
  protected fold({ items, itemFactors }: FittedNmf<U, I>, history: HistoryRows, control: Control): Promise<Handle> {
    return native.nmfFold(
      control,
      historyMatrix(history, items.size),
      placed(itemFactors, this.device).handle,
      this.#native(),
    );
  }

  /** @internal */
  protected foldSync({ items, itemFactors }: FittedNmf<U, I>, history: HistoryRows): Handle {
    return native.nmfFoldSync(
      historyMatrix(history, items.size),
      placed(itemFactors, this.device).handle,
      this.#native(),
    );
  }

  /** @internal */
  protected override expectKnown(state: FittedNmf<U, I>, side: 'user' | 'item', row: number): void {
    expectInteractions('NMF', state, side, row);
  }
}

async function complete<U extends Id, I extends Id>(
  { users, items, seen }: Fitted<U, I>,
  rows: FactorRows,
  loss: readonly number[],
  signal: AbortSignal | undefined,
): Promise<FittedNmf<U, I>> {
  const { emptyUsers, emptyItems } = await stats(seen, signal);
  return { users, items, seen, userFactors: rows.users, itemFactors: rows.items, emptyUsers, emptyItems, loss };
}

function checkOptions(options: NMFOptions): Required<NMFOptions> {
  knownOptions(options, [
    'factors',
    'objective',
    'over',
    'regularization',
    'regularizationForm',
    'iterations',
    'seed',
    'computeLoss',
    'device',
    'deviceBytes',
  ]);
  const over = oneOf('over', options.over ?? 'all', ['all', 'observed'] as const);
  const form = options.regularizationForm ?? (over === 'all' ? 'constant' : 'perEntry');
  return {
    factors: integer('factors', options.factors ?? 16, 1, 4096),
    objective: oneOf('objective', options.objective ?? 'frobenius', ['frobenius', 'kl'] as const),
    over,
    regularization: finite('regularization', options.regularization ?? 0.01, 0),
    regularizationForm: oneOf('regularizationForm', form, ['constant', 'perEntry'] as const),
    iterations: integer('iterations', options.iterations ?? 50, 1),
    seed: integer('seed', options.seed ?? 42, 0),
    computeLoss: boolean('computeLoss', options.computeLoss ?? false),
    device: deviceName(options.device ?? 'cpu'),
    deviceBytes: integer('deviceBytes', options.deviceBytes ?? 0, 0),
  };
}
