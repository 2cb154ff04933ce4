import { knownOptions } from '../check.js';
import type { Duplicates } from '../csr.js';
import { describe, expected, TopknotError } from '../errors.js';
import { runJob } from '../job.js';
import { native } from '../native.js';
import { Slices } from '../slices.js';
import { Tensor } from '../tensor.js';
import { type Id, Ids } from './ids.js';

/**
 * How raw interactions become a set of (user, item) pairs. The steps, in this order:
 * 1. interactions without user, item, value or time, with ids that are not among `users` or `items`, with a value or
 *    time that is not finite, or with a value outside `minValue` to `maxValue` are invalid;
 * 2. interactions of one user with one item are merged (`duplicates`);
 * 3. `threshold` makes implicit feedback of ratings;
 * 4. users and items with too few interactions go, until none has too few (`minUserCount`, `minItemCount`).
 */
export interface CleaningOptions<U extends Id = Id, I extends Id = Id> {
  /** Least valid value. For counts and weights, pass 0. */
  minValue?: number | undefined;
  /** Greatest valid value. */
  maxValue?: number | undefined;
  /** What to do with an invalid interaction: 'refuse' (the default) rejects with an error that names it, 'drop' counts it in the report. */
  invalid?: 'refuse' | 'drop' | undefined;
  /**
   * What to do with several interactions of one user with one item. 'last' and 'first' go by time, where there are
   * times, then by input order; 'sum' and 'max' keep the sum and the greatest value; 'refuse' rejects.
   * By default 'last' when there are values, and 'sum' (so that values count interactions) when there are none.
   */
  duplicates?: Duplicates | undefined;
  /** Keeps values from here on, as 1, and drops those below. */
  threshold?: number | undefined;
  /** Fewest interactions that a user must have. */
  minUserCount?: number | undefined;
  /** Fewest interactions that an item must have. */
  minItemCount?: number | undefined;
  /** Gives users these rows, as for a test file that goes with a training file. Other users' interactions are invalid. */
  users?: Ids<U> | undefined;
  /** Gives items these rows. Interactions with other items are invalid. */
  items?: Ids<I> | undefined;
  /** Stops the ingestion; the promise rejects with `signal.reason`. */
  signal?: AbortSignal | undefined;
}

/** Why an interaction was left out. */
export type DropReason =
  | 'missingUser'
  | 'missingItem'
  | 'missingValue'
  | 'missingTime'
  | 'unknownUser'
  | 'unknownItem'
  | 'notFinite'
  | 'outOfRange'
  | 'duplicate'
  | 'belowThreshold'
  | 'belowMinCount';

/** What cleaning did: `read` is `kept` and everything in `dropped` together. */
export interface CleaningReport {
  /** Interactions that came in. */
  readonly read: number;
  /** Interactions that are left. */
  readonly kept: number;
  /** Those that went, by reason; duplicates that were merged into another interaction are among them. */
  readonly dropped: Readonly<Record<DropReason, number>>;
}

/** The columns of interactions in native memory. @internal */
export interface TripletTensors {
  users: Tensor<'int32'>;
  items: Tensor<'int32'>;
  values: Tensor<'float32'>;
  times: Tensor<'float64'> | undefined;
}

/** Why ingestion itself finds a triplet invalid, as native cleaning knows it (0: it does not). @internal */
export const reasons = { missingUser: 1, missingItem: 2, missingValue: 3, missingTime: 4 } as const;

/** Raw columns with the ids of their rows. A negative row: an unknown id. Without values each is 1. @internal */
export interface RawTriplets<U extends Id, I extends Id> {
  users: Tensor<'int32'>;
  items: Tensor<'int32'>;
  values: Tensor<'float32'> | undefined;
  times: Tensor<'float64'> | undefined;
  reasons: Tensor<'int8'> | undefined;
  userIds: Ids<U>;
  itemIds: Ids<I>;
}

/** @internal */
export interface CleanTriplets<U extends Id, I extends Id> {
  tensors: TripletTensors;
  users: Ids<U>;
  items: Ids<I>;
  report: CleaningReport;
}

const cleaningOptions: readonly (keyof CleaningOptions)[] = [
  'minValue',
  'maxValue',
  'invalid',
  'duplicates',
  'threshold',
  'minUserCount',
  'minItemCount',
  'users',
  'items',
  'signal',
];
const duplicateChoices: readonly unknown[] = ['sum', 'refuse', 'first', 'last', 'max', undefined];

/** Throws ERR_ARGUMENT for an option that has no meaning. @internal */
export function checkCleaning(options: CleaningOptions, others: readonly string[] = []): void {
  knownOptions(options, [...others, ...cleaningOptions]);
  const { minValue = -Infinity, maxValue = Infinity, threshold, invalid, duplicates, users, items } = options;
  for (const [name, x] of Object.entries({ minValue, maxValue, threshold }))
    if (x !== undefined && (typeof x !== 'number' || Number.isNaN(x))) expected(name, 'a number', x);
  if (minValue > maxValue) expected('minValue', `at most maxValue (${maxValue})`, minValue);
  if (![undefined, 'refuse', 'drop'].includes(invalid)) expected('invalid', "'refuse' or 'drop'", invalid);
  if (!duplicateChoices.includes(duplicates))
    expected('duplicates', "'sum', 'first', 'last', 'max' or 'refuse'", duplicates);
  for (const name of ['minUserCount', 'minItemCount'] as const) {
    const count = options[name];
    if (count !== undefined && !(Number.isSafeInteger(count) && count >= 0))
      expected(name, 'a whole number from 0', count);
  }
  for (const [name, ids] of Object.entries({ users, items }))
    if (ids !== undefined && !(ids instanceof Ids)) expected(name, 'the Ids of other interactions', ids);
}

/** Cleans raw columns natively and disposes them. @internal */
export async function clean<U extends Id, I extends Id>(
  raw: RawTriplets<U, I>,
  options: CleaningOptions<U, I>,
): Promise<CleanTriplets<U, I>> {
  const read = raw.users.size;
  const { data, keptUsers, keptItems, counts } = await runJob('long', { signal: options.signal }, (control) =>
    native.interactionsClean(
      control,
      raw.users.handle,
      raw.items.handle,
      raw.values?.handle,
      raw.times?.handle,
      raw.reasons?.handle,
      raw.userIds.size,
      raw.itemIds.size,
      {
        minValue: options.minValue ?? -Infinity,
        maxValue: options.maxValue ?? Infinity,
        threshold: options.threshold,
        duplicates: options.duplicates ?? (raw.values ? 'last' : 'sum'),
        refuse: options.invalid !== 'drop',
        minUserCount: options.minUserCount ?? 0,
        minItemCount: options.minItemCount ?? 0,
        keepUsers: options.users !== undefined,
        keepItems: options.items !== undefined,
      },
    ),
  );
  for (const column of [raw.users, raw.items, raw.values, raw.times, raw.reasons]) column?.dispose();
  const tensors: TripletTensors = {
    users: new Tensor(data.users),
    items: new Tensor(data.items),
    values: new Tensor(data.values),
    times: data.times && new Tensor(data.times),
  };
  return {
    tensors,
    users: await keptIds(raw.userIds, keptUsers && new Tensor<'int32'>(keptUsers), options.signal),
    items: await keptIds(raw.itemIds, keptItems && new Tensor<'int32'>(keptItems), options.signal),
    report: { read, kept: tensors.users.size, dropped: counts },
  };
}

async function keptIds<T extends Id>(
  ids: Ids<T>,
  kept: Tensor<'int32'> | undefined,
  signal: AbortSignal | undefined,
): Promise<Ids<T>> {
  if (!kept) return ids;
  const rows = await kept.data();
  kept.dispose();
  const out = new Array<T>(rows.length);
  const slices = new Slices(signal);
  for (let i = 0; i < rows.length; i++) {
    out[i] = ids.at(rows[i] as number);
    if (slices.due()) await slices.next();
  }
  return new Ids(out);
}

/**
 * Rows of `ids` as rows of `given` instead, -1 where it lacks an id; the same rows, in a tensor of its own, without `given`.
 * @internal
 */
export async function rowsAmong<T extends Id>(
  rows: Tensor<'int32'>,
  ids: Ids<T>,
  given: Ids<T> | undefined,
  signal: AbortSignal | undefined,
): Promise<Tensor<'int32'>> {
  if (!given || given === ids) return rows.reshape(rows.shape);
  await given.ready();
  const map = new Int32Array(ids.size);
  const slices = new Slices(signal);
  for (let i = 0; i < map.length; i++) {
    map[i] = given.indexOf(ids.at(i));
    if (slices.due()) await slices.next();
  }
  return new Tensor(await runJob('long', { signal }, (control) => native.remapRows(control, rows.handle, map)));
}

/** The rows of ids as they come, in the order of their first appearance, or as given. @internal */
export class IdDictionary<T extends Id> {
  readonly #given: Ids<T> | undefined;
  readonly #rows = new Map<T, number>();
  readonly #ids: T[] = [];
  #type: string | undefined;

  constructor(given: Ids<T> | undefined) {
    this.#given = given;
    if (given && given.size > 0) this.#type = typeof given.at(0);
  }

  /** The row of an id; -1 for one that is not among the given ones. `where` names the id in an error. */
  row(id: T, where: () => string): number {
    if (typeof id !== this.#type) this.#checkType(id, where);
    if (this.#given) return this.#given.indexOf(id);
    let row = this.#rows.get(id);
    if (row === undefined) {
      row = this.#ids.length;
      this.#rows.set(id, row);
      this.#ids.push(id);
    }
    return row;
  }

  finish(): Ids<T> {
    return this.#given ?? new Ids(this.#ids, this.#rows);
  }

  #checkType(id: unknown, where: () => string): void {
    if (typeof id !== 'number' && typeof id !== 'bigint' && typeof id !== 'string')
      expected(where(), 'a number, bigint or string as id', id);
    if (this.#type === undefined) {
      this.#type = typeof id;
      return;
    }
    throw new TopknotError(
      'ERR_ARGUMENT',
      `${where()}: expected a ${this.#type}, as the ids before it, but received ${describe(id)}; ` +
        'the ids of one side must be of one type',
    );
  }
}
