import { boolean, checkK, knownOptions } from '../check.js';
import { type CsrHandles, CsrMatrix } from '../csr.js';
import { type Id, Ids } from '../data/ids.js';
import { Interactions } from '../data/interactions.js';
import { device } from '../device.js';
import type { NumericArray } from '../dtype.js';
import { expected, TopknotError } from '../errors.js';
import { checkJob, type JobOptions, onlyJob, runJob } from '../job.js';
import { native } from '../native.js';
import type { Control, Handle } from '../native-ops.js';
import { allowedBits, type ItemFilter } from '../ops/item-filter.js';
import { inSlices } from '../slices.js';
import { Tensor } from '../tensor.js';
import { type History, type HistoryRows, historyRows } from './history.js';
import { lent, takeBack } from './lent.js';
import { type Saved, writeModel } from './persist.js';
import { disposeCopies, disposePart } from './placed.js';
import type { RowFilter, Scorer, TopKRows } from './recommender.js';
import { checkFilter, checkRows } from './rows.js';

/**
 * What a model is fitted on: interactions with their ids, or a bare matrix of users × items, whose row and column
 * numbers then are the ids. Values say how strong each interaction is (a count, a weight): positive.
 */
export type Fittable<U extends Id = Id, I extends Id = Id> = Interactions<U, I> | CsrMatrix;

/** One recommended item. */
export interface Recommendation<I extends Id = Id> {
  readonly item: I;
  readonly score: number;
}

/** Somebody who need not be among the fitted users, known by what they did. */
export interface Visitor<I extends Id = Id> {
  readonly history: History<I>;
}

/** Options of `recommend` and `recommendSync`. */
export interface RecommendOptions<I extends Id = Id> extends ItemFilter<I> {
  /** How many; 10 unless given, or all where the catalogue is smaller. Fewer come back only where fewer may. */
  k?: number | undefined;
  /** Leaves out what the user has already interacted with; true unless given. */
  excludeSeen?: boolean | undefined;
}

/** What every fitted model holds. Never changed: a fit makes another one. @internal */
export interface Fitted<U extends Id, I extends Id> {
  readonly users: Ids<U>;
  readonly items: Ids<I>;
  /** The interactions of the fit, users × items. */
  readonly seen: CsrMatrix;
}

/** Whom to select for: user rows, or what a visitor's history folds in to. @internal */
export type Query = Int32Array | Float32Array | Handle | CsrHandles;

/**
 * The part that all models share: one fit at a time whose result replaces the last one at its end, recommendations in
 * the caller's ids, and files.
 */
export abstract class Model<U extends Id, I extends Id, S extends Fitted<U, I>> implements Scorer<U, I>, Disposable {
  #fitted: S | undefined;
  #busy = false;
  /** Fits that somebody is reading, and how many are. */
  readonly #readers = new Map<S, number>();

  /** The options, defaults filled in. Frozen. */
  abstract readonly options: object;

  /** @internal The k best items of each query. */
  protected abstract select(state: S, query: Query, k: number, filter: RowFilter, control: Control): Promise<TopKRows>;
  protected abstract selectSync(state: S, query: Query, k: number, filter: RowFilter): TopKRows;
  /** @internal The query of a visitor. */
  protected abstract fold(state: S, history: HistoryRows, control: Control): Promise<Query>;
  protected abstract foldSync(state: S, history: HistoryRows): Query;
  protected abstract pairScores(
    state: S,
    users: Int32Array,
    items: Int32Array,
    control: Control,
  ): Promise<Float32Array>;
  /** @internal What the file of this model holds beside ids, options and interactions. */
  protected abstract saved(state: S): Pick<Saved<U, I>, 'model'> & { tensors: Iterable<readonly [string, Tensor]> };
  /** @internal For models of ratings: what an item of a history counts as when it has no weight. */
  protected unratedWeight(_state: S): number | undefined {
    return undefined;
  }
  /** @internal Throws where the model has nothing to say about a row. */
  protected expectKnown(_state: S, _side: 'user' | 'item', _row: number): void {}

  /** Whether `fit` or `load` has completed. */
  get isFitted(): boolean {
    return this.#fitted !== undefined;
  }

  /** The users of the last fit. @throws ERR_NOT_FITTED */
  get users(): Ids<U> {
    return this.state.users;
  }

  /** The items of the last fit. @throws ERR_NOT_FITTED */
  get items(): Ids<I> {
    return this.state.items;
  }

  /**
   * The interactions of the last fit, users × items: what `excludeSeen` leaves out. Disposing it leaves the model as it is.
   * @throws ERR_NOT_FITTED
   */
  get interactions(): CsrMatrix {
    return lent(this.state.seen);
  }

  /**
   * The best items for a user, best first; equal scores by order of the items in the fit.
   *
   * @param who a user of the fit, an array of them (the answer then is an array of arrays), or `{ history }` of
   * somebody who is not among them
   * @throws ERR_NOT_FITTED; ERR_UNKNOWN_ID; ERR_RANGE for k below 1 or above the catalogue; ERR_VALUE for a user
   * without interactions where the model needs some; ERR_ARGUMENT
   * @example await model.recommend('ann', { k: 5, deny: outOfStock });
   */
  recommend(user: U, options?: RecommendOptions<I> & JobOptions): Promise<Recommendation<I>[]>;
  recommend(users: readonly U[], options?: RecommendOptions<I> & JobOptions): Promise<Recommendation<I>[][]>;
  recommend(visitor: Visitor<I>, options?: RecommendOptions<I> & JobOptions): Promise<Recommendation<I>[]>;
  async recommend(
    who: U | readonly U[] | Visitor<I>,
    options: RecommendOptions<I> & JobOptions = {},
  ): Promise<Recommendation<I>[] | Recommendation<I>[][]> {
    return this.reading(async (state) => {
      await Promise.all([state.users.ready(), state.items.ready()]);
      const { query, k, filter, count } = this.#plan(state, who, options);
      if (count === 0) return [];
      const found = await runJob('query', options, async (control) =>
        this.select(state, isRows(query) ? query : await this.fold(state, query, control), k, filter, control),
      );
      if (!Array.isArray(who)) return decode(state.items, found, 0, k);
      const lists: Recommendation<I>[][] = [];
      await inSlices(count, (begin, end) => {
        for (let q = begin; q < end; q++) lists.push(decode(state.items, found, q, k));
      });
      return lists;
    });
  }

  /**
   * Like `recommend` for one user, but blocks the calling thread until the answer is there: for services that answer
   * one request at a time and count microseconds.
   */
  recommendSync(who: U | Visitor<I>, options: RecommendOptions<I> = {}): Recommendation<I>[] {
    const state = this.state;
    if (Array.isArray(who)) expected('user', 'one user or { history } (recommend takes many)', who);
    const { query, k, filter } = this.#plan(state, who, options);
    return decode(
      state.items,
      this.selectSync(state, isRows(query) ? query : this.foldSync(state, query), k, filter),
      0,
      k,
    );
  }

  /**
   * How well an item fits a user of the fit, or `{ history }` of somebody who is not among them, as in `recommend`.
   * @throws ERR_NOT_FITTED, ERR_UNKNOWN_ID
   */
  async score(who: U | Visitor<I>, item: I, options: JobOptions = {}): Promise<number> {
    const { users, items } = this.state;
    onlyJob(options);
    await Promise.all([users.ready(), items.ready()]);
    if (isVisitor(who)) {
      items.row(item, 'item');
      const [best] = await this.recommend(who, { ...options, k: 1, excludeSeen: false, allow: [item] });
      return best!.score;
    }
    const [score] = await this.scorePairs(
      Int32Array.of(users.row(who, 'user')),
      Int32Array.of(items.row(item, 'item')),
      options,
    );
    return score!;
  }

  async topKRows(userRows: Int32Array, k: number, filter: RowFilter = {}, options: JobOptions = {}): Promise<TopKRows> {
    const state = this.state;
    onlyJob(options);
    checkRows('userRows', userRows);
    checkFilter(filter);
    checkK(k, state.items.size);
    if (userRows.length === 0) return { ids: new Int32Array(), scores: new Float32Array() };
    return runJob('query', options, (control) => this.select(state, userRows, k, filter, control));
  }

  async scorePairs(userRows: Int32Array, itemRows: Int32Array, options: JobOptions = {}): Promise<Float32Array> {
    const state = this.state;
    onlyJob(options);
    checkRows('userRows', userRows);
    checkRows('itemRows', itemRows);
    return runJob('query', options, (control) => this.pairScores(state, userRows, itemRows, control));
  }

  /**
   * Writes the model with its ids, options and interactions to one safetensors file, which Python's `safetensors`
   * reads too. The file appears whole or not at all.
   * @throws ERR_NOT_FITTED; ERR_IO; ERR_VALUE for a string id that has no UTF-8 form
   */
  async save(path: string, options: JobOptions = {}): Promise<void> {
    const state = this.state;
    onlyJob(options);
    const { model, tensors } = this.saved(state);
    const { users, items, seen } = state;
    await writeModel(path, { model, options: this.options, users, items, seen, tensors: new Map(tensors) }, options);
  }

  /** Frees the memory of the fit now. The model can be fitted again. */
  dispose(): void {
    const state = this.#fitted;
    this.#fitted = undefined;
    for (const part of Object.values(state ?? {})) {
      takeBack(part);
      disposePart(part);
    }
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  /** @internal Where the model computes: what its option `device`, where it has one, names at this moment. */
  protected get device(): string {
    const { device: name = 'cpu' } = this.options as { device?: string };
    return name === 'cpu' ? name : device(name);
  }

  /** @internal Puts what `recommend` reads on the device where the model computes. */
  protected place(_state: S): void {}

  /** @internal The last fit. */
  protected get state(): S {
    if (this.#fitted) return this.#fitted;
    throw new TopknotError(
      'ERR_NOT_FITTED',
      `${this.constructor.name}: this model has not been fitted: await fit() first`,
    );
  }

  /** @internal The fit that another one starts from. */
  protected startOf(previous: S | undefined, options: { warmStart?: boolean | undefined }): S | undefined {
    return boolean('warmStart', options.warmStart ?? false) ? (previous ?? this.state) : undefined;
  }

  /** @internal What is made of a history, as an array. */
  protected async folded(
    history: History<I>,
    options: JobOptions,
    fold: (state: S, rows: HistoryRows, control: Control) => Promise<Handle | Float32Array>,
  ): Promise<Float32Array> {
    return this.reading(async (state) => {
      onlyJob(options);
      await state.items.ready();
      const rows = historyRows(state.items, history, this.unratedWeight(state));
      const found = await runJob('query', options, (control) => fold(state, rows, control));
      if (found instanceof Float32Array) return found;
      using row = new Tensor<'float32'>(found);
      return await row.data();
    });
  }

  /** @internal Builds a state, one at a time; it takes the place of the last one only when it is complete. */
  protected async replace(build: (previous: S | undefined) => Promise<S> | S, options: JobOptions = {}): Promise<this> {
    checkJob(options);
    if (this.#busy)
      throw new TopknotError(
        'ERR_BUSY',
        `${this.constructor.name}: a fit of this model is still running: await it first`,
      );
    this.#busy = true;
    try {
      const fitted = await build(this.#fitted);
      options.signal?.throwIfAborted();
      const previous = this.#fitted;
      this.#fitted = fitted;
      if (previous) this.#freeCopies(previous);
      try {
        this.place(fitted);
      } catch {
        this.#freeParts(fitted); // the fit is good: the call that needs what has no room there says so
      }
    } finally {
      this.#busy = false;
    }
    return this;
  }

  /** @internal Runs `read` on the fit as of now, whose copies on a GPU stay until it has ended, whatever replaces it. */
  protected async reading<R>(read: (state: S) => Promise<R>): Promise<R> {
    const state = this.state;
    this.#readers.set(state, (this.#readers.get(state) ?? 0) + 1);
    try {
      return await read(state);
    } finally {
      const others = this.#readers.get(state)! - 1;
      if (others > 0) this.#readers.set(state, others);
      else this.#readers.delete(state);
      this.#freeCopies(state);
    }
  }

  /** Gives back what lies on a GPU of a fit that was replaced and nobody reads any more; queued work has references. */
  #freeCopies(state: S): void {
    if (state !== this.#fitted && !this.#readers.has(state)) this.#freeParts(state);
  }

  #freeParts(state: S): void {
    for (const part of Object.values(state)) disposeCopies(part);
  }

  #plan(state: S, who: U | readonly U[] | Visitor<I>, options: RecommendOptions<I>): Plan {
    const { users, items } = state;
    knownOptions(options, recommendOptions);
    const k = checkK(options.k ?? Math.min(10, items.size), items.size);
    const excludeSeen = boolean('excludeSeen', options.excludeSeen ?? true);
    if (isVisitor<I>(who)) {
      const query = historyRows(items, who.history, this.unratedWeight(state));
      return { query, k, count: 1, filter: { allowed: allowedBits(items, options, excludeSeen ? query.rows : []) } };
    }
    const many = Array.isArray(who);
    const query = many
      ? Int32Array.from(who as readonly U[], (user, i) => users.row(user, `users[${i}]`))
      : Int32Array.of(users.row(who as U, 'user'));
    for (const row of query) this.expectKnown(state, 'user', row);
    const filter: RowFilter = { allowed: allowedBits(items, options) };
    if (excludeSeen) {
      filter.seen = state.seen;
      filter.seenRows = query;
    }
    return { query, k, filter, count: query.length };
  }
}

const recommendOptions = ['k', 'excludeSeen', 'allow', 'deny', 'signal', 'onProgress'];

interface Plan {
  query: Int32Array | HistoryRows;
  k: number;
  filter: RowFilter;
  count: number;
}

const isVisitor = <I extends Id>(who: unknown): who is Visitor<I> =>
  typeof who === 'object' && who !== null && !Array.isArray(who);

const isRows = (query: Int32Array | HistoryRows): query is Int32Array => query instanceof Int32Array;

function decode<I extends Id>(items: Ids<I>, found: TopKRows, query: number, k: number): Recommendation<I>[] {
  const out: Recommendation<I>[] = [];
  for (let at = query * k; at < (query + 1) * k; at++) {
    const row = found.ids[at]!;
    if (row < 0) break;
    out.push({ item: items.at(row), score: found.scores[at]! });
  }
  return out;
}

/** What a model is fitted on, and the rows and columns without an interaction. @internal */
export interface CheckedInteractions<U extends Id, I extends Id> extends Fitted<U, I> {
  readonly emptyUsers: ReadonlySet<number>;
  readonly emptyItems: ReadonlySet<number>;
}

/**
 * Checks what a model is to be fitted on.
 * @throws ERR_ARGUMENT; ERR_VALUE when there is nothing or a negative weight
 * @internal
 */
export async function checkedInteractions<U extends Id, I extends Id>(
  data: Fittable<U, I>,
  options: JobOptions,
): Promise<CheckedInteractions<U, I>> {
  checkJob(options);
  if (!(data instanceof CsrMatrix) && !(data instanceof Interactions))
    expected('interactions', 'Interactions or a CsrMatrix', data);
  const bare = data instanceof CsrMatrix;
  const seen = (bare ? data : await data.matrix()).share();
  const [rows, cols] = seen.shape;
  const users = (bare ? Ids.range(rows) : data.users) as Ids<U>;
  const items = (bare ? Ids.range(cols) : data.items) as Ids<I>;
  if (seen.nnz === 0)
    throw new TopknotError(
      'ERR_VALUE',
      `interactions: expected at least one but the matrix [${rows}, ${cols}] is empty`,
    );
  const { leastWeight, emptyUsers, emptyItems } = await stats(seen, options.signal);
  if (!(leastWeight >= 0))
    throw new TopknotError('ERR_VALUE', `interactions: expected weights of 0 or more but received ${leastWeight}`);
  return { users, items, seen, emptyUsers, emptyItems };
}

/** What a fit must know of its interactions, counted natively. @internal */
export async function stats(seen: CsrMatrix, signal: AbortSignal | undefined) {
  const { leastWeight, emptyRows, emptyCols } = await runJob('long', { signal }, (control) =>
    native.interactionStats(control, seen.handles),
  );
  return { leastWeight, emptyUsers: rowSet(emptyRows), emptyItems: rowSet(emptyCols) };
}

const rowSet = (rows: NumericArray): ReadonlySet<number> => new Set(rows as Int32Array);
