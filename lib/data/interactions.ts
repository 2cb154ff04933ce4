import { CsrMatrix } from '../csr.js';
import type { Tensor } from '../tensor.js';
import {
  type CleaningOptions,
  type CleaningReport,
  type CleanTriplets,
  checkCleaning,
  clean,
  rowsAmong,
  type TripletTensors,
} from './cleaning.js';
import type { Id, Ids } from './ids.js';
import { type ColumnNames, fromColumns, fromRows, type InteractionArrays } from './rows.js';
import { type FileOptions, fromFiles, fromSql, type TableColumns } from './tables.js';
import {
  type Normalization,
  normalized,
  shared,
  type Weighting,
  type WeightingOptions,
  weighted,
} from './weighting.js';

/** What passes a filter. */
export type FilterOptions<U extends Id = Id, I extends Id = Id> = Pick<
  CleaningOptions<U, I>,
  'minValue' | 'maxValue' | 'threshold' | 'minUserCount' | 'minItemCount' | 'users' | 'items' | 'signal'
>;

const rowColumns = ['user', 'item', 'value', 'time'];
const tableColumns = [...rowColumns, 'userType', 'itemType'];

/**
 * Who did what: an immutable set of (user, item, value, time?), one for each pair of user and item, in native memory
 * and under the caller's own ids.
 *
 * Rows number users and items in the order in which the input first names them. (From files and SQL: in the order of
 * the ids themselves, numbers by size and strings by their UTF-8 bytes.) Interactions are kept by user row, those of
 * one user by time, where there are times, then in input order.
 *
 * @example
 * const ratings = await Interactions.from(rows, { user: 'userId', item: 'bookId', value: 'rating', minUserCount: 5 });
 * console.log(ratings.size, ratings.report.dropped.belowMinCount);
 */
export class Interactions<U extends Id = Id, I extends Id = Id> implements Disposable {
  /** The users' ids, by row. */
  readonly users: Ids<U>;
  /** The items' ids, by row. */
  readonly items: Ids<I>;
  /** int32 [size], rising. */
  readonly userRows: Tensor<'int32'>;
  /** int32 [size]. */
  readonly itemRows: Tensor<'int32'>;
  /** float32 [size]; 1 where the input had no values. */
  readonly values: Tensor<'float32'>;
  /** float64 [size], in the caller's unit (milliseconds since 1970 for Dates and SQL timestamps). */
  readonly times: Tensor<'float64'> | undefined;
  /** What cleaning read, kept and dropped when these interactions, or those that they come from, were made. */
  readonly report: CleaningReport;
  #matrix: Promise<CsrMatrix> | undefined;

  /** @internal */
  constructor(parts: CleanTriplets<U, I>) {
    this.users = parts.users;
    this.items = parts.items;
    this.report = parts.report;
    ({ users: this.userRows, items: this.itemRows, values: this.values, times: this.times } = parts.tensors);
  }

  /**
   * From an iterable, or async iterable, of rows: objects or arrays. Rows are taken in slices of two milliseconds, so
   * the event loop goes on.
   * @throws ERR_ARGUMENT for a row without the shape asked for, a column that no row has, or ids of mixed types;
   * ERR_VALUE or ERR_RANGE for an invalid interaction, unless `invalid` is 'drop'.
   */
  static async from<U extends Id = Id, I extends Id = Id>(
    rows: Iterable<unknown> | AsyncIterable<unknown>,
    options: ColumnNames & CleaningOptions<U, I>,
  ): Promise<Interactions<U, I>> {
    checkCleaning(options as CleaningOptions, rowColumns);
    return new Interactions(await clean(await fromRows<U, I>(rows, options), options));
  }

  /**
   * From columns of one length.
   * @throws ERR_SHAPE when lengths differ, otherwise as `from`
   * @example await Interactions.fromArrays({ users: ['ann', 'bob'], items: [7, 9], values: [4, 5] });
   */
  static async fromArrays<U extends Id = Id, I extends Id = Id>(
    arrays: InteractionArrays<U, I>,
    options: CleaningOptions<U, I> = {},
  ): Promise<Interactions<U, I>> {
    checkCleaning(options as CleaningOptions);
    return new Interactions(await clean(await fromColumns(arrays, options), options));
  }

  /**
   * From CSV, Parquet or JSON lines, also with .gz, read by DuckDB (`npm install @duckdb/node-api`) without a
   * JavaScript object for each row. Several files are read as one, in their order.
   * @param paths one path or several; wildcards have no meaning
   * @throws ERR_IO for a file that cannot be read, ERR_ARGUMENT for a column that it lacks or of a type without
   * meaning there, ERR_FORMAT for what cannot be parsed, ERR_DEPENDENCY without DuckDB; otherwise as `from`
   * @example await Interactions.read('ratings.csv.gz', { user: 'userId', item: 'bookId', value: 'rating' });
   */
  static async read<U extends Id = Id, I extends Id = Id>(
    paths: string | readonly string[],
    options: TableColumns & FileOptions & CleaningOptions<U, I>,
  ): Promise<Interactions<U, I>> {
    checkCleaning(options as CleaningOptions, [...tableColumns, 'format', 'delimiter', 'columns']);
    return new Interactions(await clean(await fromFiles<U, I>(paths, options), options));
  }

  /**
   * From a SELECT of your own, run by a DuckDB of its own (in memory): it may read files, join and aggregate. Add an
   * ORDER BY where the input order matters, as it does for `duplicates` 'first' and 'last' without times.
   * @throws ERR_ARGUMENT for SQL that DuckDB refuses; otherwise as `read`
   * @example
   * await Interactions.query("SELECT user, item, count(*) AS n FROM 'events/*.parquet' GROUP BY ALL",
   *   { user: 'user', item: 'item', value: 'n' });
   */
  static async query<U extends Id = Id, I extends Id = Id>(
    sql: string,
    options: TableColumns & CleaningOptions<U, I>,
  ): Promise<Interactions<U, I>> {
    checkCleaning(options as CleaningOptions, tableColumns);
    return new Interactions(await clean(await fromSql<U, I>(sql, options), options));
  }

  /** Number of interactions. */
  get size(): number {
    return this.userRows.size;
  }

  /** The users × items matrix, built on the first call and kept; freed by `dispose()`. */
  matrix(): Promise<CsrMatrix> {
    this.#matrix ??= CsrMatrix.fromCoo(this.userRows, this.itemRows, this.values, {
      shape: [this.users.size, this.items.size],
      duplicates: 'refuse',
    }).catch((error) => {
      this.#matrix = undefined;
      throw error;
    });
    return this.#matrix;
  }

  /**
   * The same interactions under other values.
   * @throws ERR_VALUE for a value below 0 (unless 'binary'), ERR_RANGE for an option
   */
  async weight(scheme: Weighting, options: WeightingOptions = {}): Promise<Interactions<U, I>> {
    return this.with(await weighted(this.tensors, this.users.size, this.items.size, scheme, options));
  }

  /** The same interactions with the values of every user normalised. */
  async normalize(normalization: Normalization, options: { signal?: AbortSignal } = {}): Promise<Interactions<U, I>> {
    return this.with(await normalized(this.tensors, this.users.size, normalization, options.signal));
  }

  /**
   * Those that pass, cleaned anew: without what is out of range, below the threshold, or below the minimum counts, and
   * with rows for the users and items that are left. To keep all rows, pass `users` and `items` of this object.
   */
  async filter(options: FilterOptions<U, I>): Promise<Interactions<U, I>> {
    checkCleaning(options as CleaningOptions);
    const { users, items, values, times } = this.tensors;
    const raw = {
      users: await rowsAmong(users, this.users, options.users, options.signal),
      items: await rowsAmong(items, this.items, options.items, options.signal),
      values: shared(values),
      times: times && shared(times),
      reasons: undefined,
      userIds: options.users ?? this.users,
      itemIds: options.items ?? this.items,
    };
    return new Interactions(await clean(raw, { ...options, invalid: 'drop' }));
  }

  /** @internal With these columns instead, under the same ids. */
  with(tensors: TripletTensors): Interactions<U, I> {
    const { users, items, report } = this;
    return new Interactions({ tensors, users, items, report });
  }

  /** @internal */
  get tensors(): TripletTensors {
    return { users: this.userRows, items: this.itemRows, values: this.values, times: this.times };
  }

  /** Frees the memory now, the matrix's too, unless a running job still needs it. */
  dispose(): void {
    for (const column of [this.userRows, this.itemRows, this.values, this.times]) column?.dispose();
    this.#matrix?.then(
      (matrix) => matrix.dispose(),
      () => {},
    );
    this.#matrix = undefined;
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}
