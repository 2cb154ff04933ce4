import { knownOptions, oneOf } from '../check.js';
import { type CsrHandles, CsrMatrix, type Duplicates } from '../csr.js';
import { type Id, Ids } from '../data/ids.js';
import { TopknotError } from '../errors.js';
import { type JobOptions, runJob } from '../job.js';
import { native } from '../native.js';
import type { Control, Handle } from '../native-ops.js';
import { inSlices } from '../slices.js';
import { Tensor } from '../tensor.js';
import { checkedInteractions, type Fittable, type Fitted } from './model.js';
import { disposeCopies } from './placed.js';

export interface PartialFitOptions extends JobOptions {
  /** Whose rows are solved again; 'both' unless given. */
  update?: 'users' | 'items' | 'both' | undefined;
  /** What a cell becomes that the model has already: 'last' (the new value) unless given. */
  duplicates?: Duplicates | undefined;
}

/** One row for each user and each item: vectors, with what else a model scores by. @internal */
export interface FactorRows {
  readonly users: Tensor<'float32'>;
  readonly items: Tensor<'float32'>;
}

/** One column of such rows, as a tensor of one dimension. @internal */
export async function column(control: Control, rows: Handle, at: number): Promise<Handle> {
  const found = await native.takeColumns(control, rows, at, 1);
  return native.tensorFrom(found, 'float32', [native.tensorInfo(found).shape[0]!]);
}

/** What rows of [vector, bias, 1] for users and [vector, 1, bias] for items are made of. @internal */
export async function partsOf(control: Control, users: Tensor<'float32'>, items: Tensor<'float32'>) {
  const factors = users.shape[1]! - 2;
  return {
    userFactors: new Tensor<'float32'>(await native.takeColumns(control, users.handle, 0, factors)),
    itemFactors: new Tensor<'float32'>(await native.takeColumns(control, items.handle, 0, factors)),
    userBiases: new Tensor<'float32'>(await column(control, users.handle, factors)),
    itemBiases: new Tensor<'float32'>(await column(control, items.handle, factors + 1)),
  };
}

/** Rows of one side that are to be solved, the other side being as it is. @internal */
export interface TouchedRows extends FactorRows {
  readonly side: keyof FactorRows;
  /** Their numbers among `users` or `items`. */
  readonly at: Int32Array;
  /** Their interactions: [at.length, the size of the other side]. */
  readonly matrix: CsrHandles;
  /** All interactions, users × items. */
  readonly seen: CsrMatrix;
}

/** How a model takes in interactions. @internal */
export interface Learner {
  /** What a user or an item has of which nothing is known. */
  readonly fresh: Record<keyof FactorRows, Float32Array>;
  /** The new rows. */
  solve(touched: TouchedRows, control: Control): Promise<Handle>;
}

/**
 * The body of `partialFit`: merges, grows, and solves what the interactions name, one side after the other.
 * @internal
 */
export async function learnOn<U extends Id, I extends Id>(
  previous: Fitted<U, I>,
  rows: FactorRows,
  interactions: Fittable<U, I>,
  options: PartialFitOptions,
  learner: Learner,
): Promise<Fitted<U, I> & { rows: FactorRows }> {
  knownOptions(options, ['update', 'duplicates', 'signal', 'onProgress']);
  const { signal } = options;
  const update = oneOf('update', options.update ?? 'both', ['users', 'items', 'both'] as const);
  const data = await checkedInteractions(interactions, options);
  const users = await growIds('users', previous.users, data.users, signal);
  const items = await growIds('items', previous.items, data.items, signal);
  const counts = [users.ids.size, items.ids.size] as const;
  const duplicates = options.duplicates ?? 'last';
  const seen = new CsrMatrix(
    await runJob('long', { signal }, (control) =>
      native.csrUpdate(
        control,
        previous.seen.handles,
        data.seen.handles,
        users.rowOf,
        items.rowOf,
        ...counts,
        duplicates,
      ),
    ),
  );
  const sides = {
    users: { at: await without(users.rowOf, data.emptyUsers, signal), matrix: seen },
    items: {
      at: await without(items.rowOf, data.emptyItems, signal),
      matrix: update === 'users' ? seen : await seen.transpose({ signal }),
    },
  };
  let now: FactorRows = {
    users: await grown(rows.users, users.ids.size, learner.fresh.users, signal),
    items: await grown(rows.items, items.ids.size, learner.fresh.items, signal),
  };
  const order = update === 'both' ? (['users', 'items', 'users'] as const) : [update];
  try {
    for (const [done, side] of order.entries()) {
      const { at, matrix } = sides[side];
      const solved = await runJob('long', { signal }, async (control) => {
        const own = await native.csrTakeRows(control, matrix.handles, at);
        using rows = new Tensor(await learner.solve({ ...now, side, at, matrix: own, seen }, control));
        using onCpu = rows.to('cpu');
        return await native.replaceRows(control, now[side].handle, now[side].shape[0]!, at, onCpu.handle);
      });
      disposeCopies(now[side]);
      now = { ...now, [side]: new Tensor(solved) };
      options.onProgress?.({ done: done + 1, total: order.length });
    }
  } finally {
    for (const side of [now.users, now.items]) disposeCopies(side); // the fit that is made of them places its own
  }
  if (sides.items.matrix !== seen) sides.items.matrix.dispose();
  return { users: users.ids, items: items.ids, seen, rows: now };
}

/** The same rows and, at the end, fresh ones, `count` in all. */
async function grown(
  rows: Tensor<'float32'>,
  count: number,
  fresh: Float32Array,
  signal: AbortSignal | undefined,
): Promise<Tensor<'float32'>> {
  return new Tensor(await runJob('long', { signal }, (control) => native.growRows(control, rows.handle, count, fresh)));
}

/** The numbers in `rowOf` whose places are not among `empty`. */
async function without(
  rowOf: Int32Array,
  empty: ReadonlySet<number>,
  signal: AbortSignal | undefined,
): Promise<Int32Array> {
  if (empty.size === 0) return rowOf;
  const kept = new Int32Array(rowOf.length);
  let count = 0;
  const visit = (begin: number, end: number) => {
    for (let i = begin; i < end; i++) if (!empty.has(i)) kept[count++] = rowOf[i]!;
  };
  await inSlices(rowOf.length, visit, signal);
  return kept.subarray(0, count);
}

/** `known` with the new ones of `more` at the end, and the row there of each of `more`. */
async function growIds<T extends Id>(
  name: string,
  known: Ids<T>,
  more: Ids<T>,
  signal: AbortSignal | undefined,
): Promise<{ ids: Ids<T>; rowOf: Int32Array }> {
  const rowOf = new Int32Array(more.size);
  if (known.isRange && more.isRange) {
    const ids = Ids.range(Math.max(known.size, more.size)) as Ids as Ids<T>;
    for (let row = 0; row < rowOf.length; row++) rowOf[row] = row;
    return { ids, rowOf };
  }
  if (known.type !== more.type)
    throw new TopknotError(
      'ERR_ARGUMENT',
      `interactions.${name}: expected ids that are a ${known.type}, as in the fit, but received a ${more.type}`,
    );
  await known.ready();
  const added: T[] = [];
  const visit = (begin: number, end: number) => {
    for (let i = begin; i < end; i++) {
      const id = more.at(i);
      const row = known.indexOf(id);
      rowOf[i] = row >= 0 ? row : known.size + added.push(id) - 1;
    }
  };
  await inSlices(more.size, visit, signal);
  if (added.length === 0) return { ids: known, rowOf };
  const ids: T[] = [];
  const copy = (begin: number, end: number) => {
    for (let row = begin; row < end; row++) ids.push(row < known.size ? known.at(row) : added[row - known.size]!);
  };
  await inSlices(known.size + added.length, copy, signal);
  return { ids: new Ids(ids), rowOf };
}
