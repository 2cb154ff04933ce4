import { expected, TopknotError } from '../errors.js';
import { Slices } from '../slices.js';
import { type CleaningOptions, IdDictionary, type RawTriplets, reasons } from './cleaning.js';
import { Column } from './column.js';
import type { Id } from './ids.js';

/** Where a row holds what: names of properties, or positions for rows that are arrays. */
export interface ColumnNames {
  user: string | number;
  item: string | number;
  /** Without it every interaction counts 1. */
  value?: string | number | undefined;
  /** Numbers in any unit, or Dates (kept as milliseconds since 1970). */
  time?: string | number | undefined;
}

/** Columns of one length, element j of each for interaction j. Typed arrays are copied; do not change others meanwhile. */
export interface InteractionArrays<U extends Id = Id, I extends Id = Id> {
  users: ArrayLike<U>;
  items: ArrayLike<I>;
  values?: ArrayLike<number> | undefined;
  times?: ArrayLike<number | bigint | Date> | undefined;
}

type Row = Record<string | number, unknown>;

/** Takes triplets one at a time and keeps them natively. `names` say where a triplet came from in an error. */
class TripletBuilder<U extends Id, I extends Id> {
  readonly #users = new Column('int32');
  readonly #items = new Column('int32');
  readonly #values: Column<'float32'> | undefined;
  readonly #times: Column<'float64'> | undefined;
  readonly #reasons = new Column('int8');
  readonly #userIds: IdDictionary<U>;
  readonly #itemIds: IdDictionary<I>;
  readonly #name: (column: 'user' | 'item' | 'value' | 'time', index: number) => string;
  #count = 0;

  constructor(
    options: CleaningOptions<U, I>,
    has: { values: boolean; times: boolean },
    name: (column: 'user' | 'item' | 'value' | 'time', index: number) => string,
  ) {
    this.#userIds = new IdDictionary(options.users);
    this.#itemIds = new IdDictionary(options.items);
    if (has.values) this.#values = new Column('float32');
    if (has.times) this.#times = new Column('float64');
    this.#name = name;
  }

  add(user: unknown, item: unknown, value: unknown, time: unknown): void {
    const x = this.#values ? this.#number('value', value) : 1;
    const t = this.#times ? this.#number('time', time instanceof Date ? time.getTime() : time) : 0;
    let reason = 0;
    if (isMissing(user)) reason = reasons.missingUser;
    else if (isMissing(item)) reason = reasons.missingItem;
    else if (x === undefined) reason = reasons.missingValue;
    else if (t === undefined) reason = reasons.missingTime;
    // Ids of invalid triplets get no row.
    this.#users.push(reason ? 0 : this.#userIds.row(user as U, () => this.#name('user', this.#count)));
    this.#items.push(reason ? 0 : this.#itemIds.row(item as I, () => this.#name('item', this.#count)));
    this.#reasons.push(reason);
    this.#values?.push(x ?? 0);
    this.#times?.push(t ?? 0);
    this.#count++;
  }

  async finish(signal: AbortSignal | undefined): Promise<RawTriplets<U, I>> {
    const [users, items, values, times, why] = await Promise.all([
      this.#users.finish(signal),
      this.#items.finish(signal),
      this.#values?.finish(signal),
      this.#times?.finish(signal),
      this.#reasons.finish(signal),
    ]);
    return {
      users,
      items,
      values,
      times,
      reasons: why,
      userIds: this.#userIds.finish(),
      itemIds: this.#itemIds.finish(),
    };
  }

  #number(column: 'value' | 'time', x: unknown): number | undefined {
    if (typeof x === 'number') return x;
    if (x === null || x === undefined) return undefined;
    if (typeof x === 'bigint') return Number(x);
    expected(this.#name(column, this.#count), column === 'time' ? 'a number or Date' : 'a number', x);
  }
}

const isMissing = (id: unknown): boolean => id === null || id === undefined || Number.isNaN(id);

/** @internal */
export async function fromRows<U extends Id, I extends Id>(
  rows: Iterable<unknown> | AsyncIterable<unknown>,
  options: ColumnNames & CleaningOptions<U, I>,
): Promise<RawTriplets<U, I>> {
  const { user, item, value, time, signal } = options;
  for (const [name, key] of Object.entries({ user, item, value, time })) {
    const wanted = name === 'value' || name === 'time' ? key !== undefined : true;
    if (wanted && typeof key !== 'string' && typeof key !== 'number')
      expected(name, 'the name of a property or the position in an array', key);
  }
  const names = { user, item, value, time };
  const has = { values: value !== undefined, times: time !== undefined };
  const builder = new TripletBuilder<U, I>(options, has, (column, index) => `rows[${index}].${names[column]}`);
  let count = 0;
  // A column that no row has is a mistyped name, not missing data.
  const seen: Record<keyof typeof names, boolean> = { user: false, item: false, value: !has.values, time: !has.times };
  const take = (row: unknown) => {
    if (typeof row !== 'object' || row === null) expected(`rows[${count}]`, 'an object or an array', row);
    const r = row as Row;
    if (!seen.user || !seen.item || !seen.value || !seen.time)
      for (const column of ['user', 'item', 'value', 'time'] as const) seen[column] ||= (names[column] as string) in r;
    builder.add(r[user], r[item], has.values ? r[value as string] : 1, has.times ? r[time as string] : 0);
    count++;
  };
  await ready(options);
  const slices = new Slices(signal);
  const source = rows as Iterable<unknown> & AsyncIterable<unknown>;
  if (typeof source?.[Symbol.asyncIterator] === 'function') {
    for await (const row of source) {
      take(row);
      if (slices.due()) await slices.next();
    }
  } else if (typeof source?.[Symbol.iterator] === 'function' && typeof source !== 'string') {
    for (const row of source) {
      take(row);
      if (slices.due()) await slices.next();
    }
  } else expected('rows', 'an iterable or async iterable of rows', rows);
  for (const column of ['user', 'item', 'value', 'time'] as const)
    if (count > 0 && !seen[column])
      throw new TopknotError('ERR_ARGUMENT', `${column}: none of the ${count} rows has '${names[column]}'`);
  return builder.finish(signal);
}

/** @internal */
export async function fromColumns<U extends Id, I extends Id>(
  arrays: InteractionArrays<U, I>,
  options: CleaningOptions<U, I>,
): Promise<RawTriplets<U, I>> {
  if (typeof arrays !== 'object' || arrays === null)
    expected('arrays', 'an object { users, items, values?, times? }', arrays);
  const users = column('users', arrays.users);
  const items = column('items', arrays.items, users.length);
  const values = arrays.values && column('values', arrays.values, users.length);
  const times = arrays.times && column('times', arrays.times, users.length);
  const has = { values: values !== undefined, times: times !== undefined };
  const builder = new TripletBuilder<U, I>(options, has, (name, index) => `${name}s[${index}]`);
  await ready(options);
  const slices = new Slices(options.signal);
  for (let j = 0; j < users.length; j++) {
    builder.add(users[j], items[j], values?.[j], times?.[j]);
    if (slices.due()) await slices.next();
  }
  return builder.finish(options.signal);
}

/** Builds the maps of the given ids now, in slices: the first look-up would build them in one go. */
const ready = ({ users, items }: CleaningOptions) => Promise.all([users?.ready(), items?.ready()]);

/** The caller's array, or a copy where another thread may take it away. */
function column<T>(name: string, array: ArrayLike<T>, length?: number): ArrayLike<T> {
  let out: ArrayLike<T> = array;
  if (ArrayBuffer.isView(array) && !(array instanceof DataView)) {
    try {
      out = (array as unknown as Float64Array).slice() as unknown as ArrayLike<T>;
    } catch {
      throw new TopknotError('ERR_ARGUMENT', `${name}: this typed array is detached (it was transferred elsewhere)`);
    }
  } else if (!Array.isArray(array)) expected(name, 'an array or typed array', array);
  if (length !== undefined && out.length !== length)
    throw new TopknotError(
      'ERR_SHAPE',
      `${name}: expected ${length} entries, as many as users, but received ${out.length}`,
    );
  return out;
}
