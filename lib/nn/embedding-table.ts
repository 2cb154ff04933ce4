import { finite, integer, knownOptions, oneOf } from '../check.js';
import { type DType, dtypeBytes } from '../dtype.js';
import { expected, TopknotError } from '../errors.js';
import { readSafetensors, writeSafetensors } from '../format/safetensors.js';
import { type JobOptions, runJob } from '../job.js';
import { native } from '../native.js';
import type { Handle } from '../native-ops.js';
import { flatGradient, heldIds } from '../ops/embedding-backward.js';
import { type EmbeddingBagOptions, nativeBags } from '../ops/embedding-bag.js';
import type { RowIds } from '../ops/gather.js';
import { type Placement, placementOf } from '../search/placement.js';
import { dtypeOfArray, handleOf, Tensor } from '../tensor.js';

/**
 * How a row x with the gradient g is updated. Rows that no entry of a step looks up are not touched.
 * - 'sgd': x -= learningRate · g
 * - 'adagrad', by row: s += mean(g²), x -= learningRate · g / (√s + epsilon), with one number s for each row (Duchi, Hazan,
 *   Singer, "Adaptive subgradient methods", JMLR 2011; by row as in Naumov et al., "Deep learning recommendation model
 *   for personalization and recommendation systems", 2019)
 * - 'adam', lazy: Adam (Kingma, Ba, ICLR 2015) with the bias correction of the table's step, but the moments of a row
 *   change only when it is looked up, as in PyTorch's SparseAdam
 */
export type EmbeddingOptimizer = 'sgd' | 'adagrad' | 'adam';

export interface EmbeddingTableOptions {
  /** 'adagrad' unless given. */
  optimizer?: EmbeddingOptimizer;
  /** Above 0. 0.01 unless given; 0.001 for 'adam'. */
  learningRate?: number;
  /** Above 0; 1e-8 unless given. */
  epsilon?: number;
  /** Of 'adam': 0.9 unless given. */
  beta1?: number;
  /** Of 'adam': 0.999 unless given. */
  beta2?: number;
  /** Of the random start and of the stochastic rounding of 16-bit tables; 42 unless given. */
  seed?: number;
}

/** Where a table learns. */
export interface EmbeddingPlacement {
  /** 'cpu' unless given; 'cuda', 'cuda:1', ... or 'auto', see `device()`. */
  device?: string | undefined;
  /**
   * The most bytes of a GPU's memory that the table and the state of its optimizer may take: a third of what is free unless
   * given. Where they would take more they stay in host memory; a call sends the rows that it looks up, each once, and an
   * update brings them back. Results are the same.
   */
  deviceBytes?: number | undefined;
}

export interface EmbeddingInit extends EmbeddingTableOptions, EmbeddingPlacement {
  /** 'float32' unless given. */
  dtype?: 'float32' | 'float16' | 'bfloat16';
  /** 'normal' unless given; both have mean 0. */
  init?: 'normal' | 'uniform';
  /** The standard deviation; 0.01 unless given. 'uniform' reaches from -√3 to √3 times as far. */
  std?: number;
}

/** A table at one moment, for saving and for going on from. */
export interface EmbeddingSnapshot {
  table: Tensor<'float32' | 'float16' | 'bfloat16'>;
  /** None for 'sgd'; 'sums' [rows] for 'adagrad'; 'means' and 'squares' [rows, cols] for 'adam'. All float32. */
  state: Readonly<Record<string, Tensor<'float32'>>>;
  /** Updates so far. */
  step: number;
}

const names: Readonly<Record<EmbeddingOptimizer, readonly string[]>> = {
  sgd: [],
  adagrad: ['sums'],
  adam: ['means', 'squares'],
};

/**
 * An embedding table that learns: its rows and the state of an optimizer, changed in place.
 *
 * Tensors never change, so this class keeps its memory to itself: lookups and snapshots are copies. Calls take effect in
 * the order in which they are made. A lookup made before `backward` gives the rows before the update and one made after it
 * those after it, whether or not the promises have been awaited; an update waits for the lookups before it, and those
 * after it wait for it. A second `backward` while one is running is refused with ERR_BUSY.
 *
 * 16-bit tables are updated in float32 and rounded stochastically, by random numbers that are a function of the seed, the
 * row and the step; so steps far smaller than the spacing of 16-bit floats still add up. Same calls, same bytes, at any
 * thread count.
 *
 * @example
 * const items = await EmbeddingTable.from(start, { optimizer: 'adagrad', learningRate: 0.05 });
 * const bags = await items.bag(ids, offsets, { mode: 'mean' });
 * await items.backward(gradientOf(bags), ids, offsets, { mode: 'mean' });
 */
export class EmbeddingTable {
  readonly options: Readonly<Required<EmbeddingTableOptions>>;
  /** [rows, cols] */
  readonly shape: readonly [number, number];
  readonly dtype: 'float32' | 'float16' | 'bfloat16';
  /** 'cpu' or 'cuda:0', ...: where lookups leave their results, and where gradients must be. Ids may be anywhere. */
  readonly device: string;
  readonly #table: Handle;
  readonly #state: readonly Handle[];
  #step: number;
  /** Ends, without an error, when the last update has. */
  #updated: Promise<void> = Promise.resolve();
  #updating = false;
  readonly #readers = new Set<Promise<unknown>>();
  #disposed = false;

  private constructor(
    table: Handle,
    state: readonly Handle[],
    step: number,
    options: Readonly<Required<EmbeddingTableOptions>>,
    device: string,
  ) {
    const { shape, dtype } = native.tensorInfo(table);
    this.#table = table;
    this.#state = state;
    this.#step = step;
    this.options = options;
    this.shape = Object.freeze([shape[0]!, shape[1]!] as const);
    this.dtype = dtype as this['dtype'];
    this.device = device;
  }

  /**
   * A table of random rows. Each value is a function of the seed, its row and its column: the same at any thread count,
   * and whatever the number of rows.
   * @example const users = await EmbeddingTable.create([userCount, 64], { std: 0.1, seed: 1 });
   * @throws ERR_SHAPE, ERR_DTYPE, ERR_ARGUMENT, ERR_RANGE, ERR_DEVICE
   */
  static async create(shape: readonly [number, number], options: EmbeddingInit = {}): Promise<EmbeddingTable> {
    knownOptions(options, [...optionNames, 'dtype', 'init', 'std', 'device', 'deviceBytes']);
    const { dtype = 'float32', init = 'normal', std = 0.01, device, deviceBytes, ...rest } = options;
    const checked = Object.freeze(checkOptions(rest));
    oneOf('dtype', dtype, dtypes);
    oneOf('init', init, ['normal', 'uniform'] as const);
    finite('std', std, 0);
    if (!Array.isArray(shape) || shape.length !== 2) expected('shape', '[rows, cols]', shape);
    integer('shape', shape[0], 0);
    integer('shape', shape[1], 1);
    const placement = placementOf({ device, deviceBytes });
    const make = async (where: string): Promise<readonly Handle[]> => {
      const made = await runJob('long', {}, (control) =>
        native.randomValues(control, dtype, shape, init, std, checked.seed, where),
      );
      try {
        return [made, ...stateOf({ table: new Tensor(made) }, checked.optimizer)];
      } catch (error) {
        native.dispose(made); // the state has no room there: then the table makes room
        throw error;
      }
    };
    const [table, ...state] =
      (await madeThere(make, shape, dtype, checked.optimizer, placement)) ?? (await make('cpu'));
    return new EmbeddingTable(table!, state, 0, checked, placement.device);
  }

  /**
   * A table that starts as a copy of `start`, [rows, cols], with fresh optimizer state; or that goes on from a snapshot,
   * whose optimizer must be the same. It learns where `start` is unless a device is given.
   * @throws ERR_DTYPE, ERR_SHAPE, ERR_ARGUMENT, ERR_RANGE; ERR_DEVICE for state on another device than the table
   */
  static async from(
    start: Tensor<'float32' | 'float16' | 'bfloat16'> | EmbeddingSnapshot,
    options: EmbeddingTableOptions & EmbeddingPlacement = {},
  ): Promise<EmbeddingTable> {
    knownOptions(options, [...optionNames, 'device', 'deviceBytes']);
    const { device, deviceBytes, ...rest } = options;
    const checked = Object.freeze(checkOptions(rest));
    if (typeof start !== 'object' || start === null) expected('start', 'a Tensor or a snapshot', start);
    const snapshot = start instanceof Tensor ? { table: start, step: 0 } : start;
    const table = handleOf('start.table', snapshot.table);
    const state = stateOf(snapshot, checked.optimizer);
    const step = integer('start.step', snapshot.step, 0);
    const placement = placementOf({ device: device ?? snapshot.table.device, deviceBytes });
    const [own, ...ownState] = await placed([table, ...state], placement);
    if (!('state' in snapshot)) for (const handle of state) native.dispose(handle);
    return new EmbeddingTable(own!, ownState, step, checked, placement.device);
  }

  /**
   * Reads what `save` has written: the table goes on as if it had never stopped, on `device`, 'cpu' unless given.
   * @throws ERR_IO; ERR_FORMAT for a file that is not what `save` makes; ERR_DEVICE
   */
  static async load(path: string, options: JobOptions & EmbeddingPlacement = {}): Promise<EmbeddingTable> {
    knownOptions(options, ['signal', 'onProgress', 'device', 'deviceBytes']);
    const { device, deviceBytes, ...jobOptions } = options;
    const placement = placementOf({ device, deviceBytes });
    const { tensors, metadata } = await readSafetensors(path, jobOptions);
    let found: { handles: Handle[]; step: number; checked: ReturnType<typeof checkOptions> };
    try {
      if (metadata.get('format') !== 'topknot' || metadata.get('model') !== fileKind)
        throw new TopknotError('ERR_FORMAT', 'it was not saved by EmbeddingTable');
      if (metadata.get('version') !== fileVersion)
        throw new TopknotError('ERR_FORMAT', `it has version ${metadata.get('version')}, expected ${fileVersion}`);
      const checked = Object.freeze(checkOptions(JSON.parse(metadata.get('options') ?? 'null')));
      const table = tensors.get('table') as EmbeddingSnapshot['table'] | undefined;
      if (!table) throw new TopknotError('ERR_FORMAT', "it lacks the tensor 'table'");
      const state = Object.fromEntries(
        names[checked.optimizer].map((name) => [name, tensors.get(`state.${name}`) as Tensor<'float32'>]),
      );
      const step = integer('step', Number(metadata.get('step')), 0);
      found = { handles: [table.handle, ...stateOf({ table, state }, checked.optimizer)], step, checked };
    } catch (cause) {
      const what = cause instanceof Error ? cause.message : String(cause);
      throw new TopknotError('ERR_FORMAT', `path: '${path}' is no embedding table: ${what}`, { cause });
    }
    const [table, ...state] = await placed(found.handles, placement, 'owned');
    return new EmbeddingTable(table!, state, found.step, found.checked, placement.device);
  }

  /** Updates so far. */
  get step(): number {
    return this.#step;
  }

  /** The rows of `ids`, as `gather`: [...shape of ids, cols], in the table's dtype. */
  lookup(ids: RowIds): Promise<Tensor> {
    const held = heldIds('ids', ids);
    return this.#read(
      async () =>
        new Tensor(
          await runJob('query', {}, (control) => native.gatherRows(control, { data: this.#table }, held, this.device)),
        ),
    );
  }

  /** One float32 row for each bag, as `embeddingBag`. */
  bag(ids: RowIds, offsets?: RowIds, options: EmbeddingBagOptions = {}): Promise<Tensor<'float32'>> {
    const [held, ends, bags] = [heldIds('ids', ids), heldOffsets(offsets), heldBags(options)];
    return this.#read(
      async () =>
        new Tensor<'float32'>(
          await runJob('query', {}, (control) =>
            native.embeddingBagRows(control, { data: this.#table }, held, ends, bags, this.device),
          ),
        ),
    );
  }

  /**
   * One step of the optimizer from the derivative of a loss by what `bag` returned for the same ids, offsets and options;
   * without options, by what `lookup` returned for the same ids. No gradient of the size of the table is made.
   *
   * For 'max', which entry won is found anew from the rows as they are now. Everything is checked before the first row
   * changes, so a step that fails changes nothing; once begun it cannot be aborted.
   *
   * @param gradient float32 [bags, cols], or [...shape of ids, cols] after `lookup`
   * @throws ERR_BUSY while another step runs; rejects with ERR_VALUE for a gradient that is not finite, ERR_SHAPE,
   * ERR_DTYPE, ERR_RANGE, ERR_ARGUMENT
   */
  async backward(
    gradient: Tensor<'float32'>,
    ids: RowIds,
    offsets?: RowIds,
    options?: EmbeddingBagOptions,
  ): Promise<void> {
    this.#live();
    if (this.#updating)
      throw new TopknotError('ERR_BUSY', 'backward: a step of this table is still running; await it before the next');
    const single = offsets === undefined && options === undefined;
    const held = heldIds('ids', ids, single ? 'column' : undefined);
    const ends = heldOffsets(offsets);
    const by = single
      ? flatGradient(gradient)
      : native.tensorFrom(handleOf('gradient', gradient), 'float32', gradient.shape);
    const bags = heldBags(options ?? {});
    const { learningRate, epsilon, beta1, beta2, optimizer, seed } = this.options;
    this.#updating = true;
    const update = (async () => {
      await Promise.allSettled([...this.#readers]);
      const step = this.#step + 1;
      const rates = { optimizer, learningRate, epsilon, beta1, beta2, seed, step };
      await runJob('query', {}, (control) =>
        native.embeddingTableUpdate(control, this.#table, this.#state, by, held, ends, bags, rates, this.device),
      );
      this.#step = step;
    })().finally(() => {
      this.#updating = false;
    });
    this.#updated = update.catch(() => {});
    return update;
  }

  /** Copies of the table and of the optimizer's state. */
  snapshot(): Promise<EmbeddingSnapshot> {
    return this.#read(async () => {
      const step = this.#step;
      const [table, ...state] = await Promise.all([this.#table, ...this.#state].map(copy));
      const named = names[this.options.optimizer].map((name, i) => [name, new Tensor<'float32'>(state[i]!)] as const);
      return { table: new Tensor(table!), state: Object.fromEntries(named), step };
    });
  }

  /**
   * Writes the table, the optimizer's state and options, and the step to a safetensors file, whole or not at all: the
   * tensors 'table' and 'state.sums', or 'state.means' and 'state.squares'. Saves the table as it is at the call.
   * @throws ERR_IO
   */
  async save(path: string, options: JobOptions = {}): Promise<void> {
    const { table, state, step } = await this.snapshot();
    const tensors = [['table', table] as const, ...Object.entries(state).map(([k, t]) => [`state.${k}`, t] as const)];
    const entries = tensors.map(([name, t]) => [name, t.to('cpu')] as const);
    try {
      await writeSafetensors(path, entries, {
        ...options,
        metadata: {
          format: 'topknot',
          version: fileVersion,
          model: fileKind,
          options: JSON.stringify(this.options),
          step: String(step),
        },
      });
    } finally {
      for (const [, t] of [...tensors, ...entries]) t.dispose();
    }
  }

  /** Frees the memory once what is running has ended. Every later call throws ERR_DISPOSED. */
  dispose(): void {
    if (this.#disposed) return;
    this.#disposed = true;
    Promise.allSettled([this.#updated, ...this.#readers]).then(() => {
      for (const handle of [this.#table, ...this.#state]) native.dispose(handle);
    });
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  #live(): void {
    if (this.#disposed) throw new TopknotError('ERR_DISPOSED', 'table: this table has been disposed');
  }

  /** Runs `work` after the updates made so far and before any later one. */
  async #read<T>(work: () => Promise<T>): Promise<T> {
    this.#live();
    const reading = this.#updating ? this.#updated.then(work) : work();
    this.#readers.add(reading);
    try {
      return await reading;
    } finally {
      this.#readers.delete(reading);
    }
  }
}

const [fileKind, fileVersion] = ['embedding-table', '1'];
const dtypes = ['float32', 'float16', 'bfloat16'] as const;

/** The state that a table begins with: that of a snapshot, which is checked, or zeros. */
function stateOf(
  { table, state }: Pick<EmbeddingSnapshot, 'table'> & Partial<EmbeddingSnapshot>,
  optimizer: EmbeddingOptimizer,
): Handle[] {
  if (table.shape.length !== 2 || table.shape[1] === 0)
    throw new TopknotError('ERR_SHAPE', `start: expected shape [rows, cols] but received [${table.shape.join(', ')}]`);
  if (!dtypes.includes(table.dtype))
    throw new TopknotError('ERR_DTYPE', `start: expected float32, float16 or bfloat16 but received ${table.dtype}`);
  return names[optimizer].map((name) => {
    const shape = optimizer === 'adagrad' ? [table.shape[0]!] : table.shape;
    if (!state) return native.tensorFull('float32', shape, 0, table.device);
    const given = state[name];
    if (!(given instanceof Tensor))
      throw new TopknotError('ERR_ARGUMENT', `start.state: expected '${name}' for the optimizer '${optimizer}'`);
    if (given.dtype !== 'float32' || given.shape.join() !== shape.join())
      throw new TopknotError(
        'ERR_SHAPE',
        `start.state.${name}: expected float32 [${shape.join(', ')}] but received ${given.dtype} [${given.shape.join(', ')}]`,
      );
    if (given.device !== table.device)
      throw new TopknotError(
        'ERR_DEVICE',
        `start.state.${name}: expected to be on device '${table.device}', as start.table is, but is on '${given.device}'`,
      );
    return given.handle;
  });
}

/** What `make` makes on the GPU; undefined on the CPU, and where it would take too much of the GPU's memory. */
async function madeThere(
  make: (device: string) => Promise<readonly Handle[]>,
  [rows, cols]: readonly [number, number],
  dtype: DType,
  optimizer: EmbeddingOptimizer,
  { device, bytes: most }: Placement,
): Promise<readonly Handle[] | undefined> {
  if (device === 'cpu') return undefined;
  const ofState = { sgd: 0, adagrad: 4, adam: 8 * cols }[optimizer];
  const bytes = rows * (cols * dtypeBytes[dtype] + ofState);
  if (!(await runJob('long', {}, (control) => native.fitsDevice(control, device, bytes, most)))) return undefined;
  try {
    return await make(device);
  } catch (error) {
    if ((error as TopknotError).code !== 'ERR_MEMORY') throw error;
    return undefined; // others took the memory
  }
}

/**
 * Copies of the table and its state on the device; in host memory where they would take too much of the device's. What is
 * `owned` is on the CPU, and is taken instead of a copy there.
 */
async function placed(
  given: readonly Handle[],
  { device, bytes }: Placement,
  owned?: 'owned',
): Promise<readonly Handle[]> {
  const from = native.tensorInfo(given[0]!).device;
  if (device !== from && device !== 'cpu') {
    const there = await runJob('long', {}, (control) => native.indexPlace(control, given, device, bytes));
    if (there.length > 0) {
      if (owned) for (const handle of given) native.dispose(handle);
      return there;
    }
  }
  if (owned) return given;
  return Promise.all(
    given.map((handle) => (from === device || from === 'cpu' ? copy(handle) : native.toDevice(handle, 'cpu'))),
  );
}

const copy = (handle: Handle): Promise<Handle> =>
  runJob('long', {}, (control) => native.embeddingTableCopy(control, handle));

const heldOffsets = (offsets: RowIds | undefined) => (offsets === undefined ? undefined : heldIds('offsets', offsets));

/** Bags whose weights stay as they are now. */
function heldBags(options: EmbeddingBagOptions): ReturnType<typeof nativeBags> {
  const bags = nativeBags(options);
  const { weights } = options;
  if (weights === undefined) return bags;
  const [data, dtype, shape] =
    weights instanceof Tensor
      ? [weights.handle, weights.dtype, weights.shape]
      : [weights, dtypeOfArray(weights), [weights.length]];
  return { ...bags, weights: native.tensorFrom(data, dtype, shape) };
}

const optionNames = ['optimizer', 'learningRate', 'epsilon', 'beta1', 'beta2', 'seed'] as const;

function checkOptions(options: EmbeddingTableOptions): Required<EmbeddingTableOptions> {
  knownOptions(options, optionNames);
  const optimizer = oneOf('optimizer', options.optimizer ?? 'adagrad', ['sgd', 'adagrad', 'adam'] as const);
  const positive = (name: 'learningRate' | 'epsilon', fallback: number) => {
    const value = finite(name, options[name] ?? fallback, 0);
    if (value === 0) throw new TopknotError('ERR_RANGE', `${name}: expected a number above 0 but received 0`);
    return value;
  };
  const beta = (name: 'beta1' | 'beta2', fallback: number) => {
    const value = finite(name, options[name] ?? fallback, 0);
    if (value >= 1) throw new TopknotError('ERR_RANGE', `${name}: expected a number below 1 but received ${value}`);
    return value;
  };
  return {
    optimizer,
    learningRate: positive('learningRate', optimizer === 'adam' ? 0.001 : 0.01),
    epsilon: positive('epsilon', 1e-8),
    beta1: beta('beta1', 0.9),
    beta2: beta('beta2', 0.999),
    seed: integer('seed', options.seed ?? 42, 0),
  };
}
