import type { CsrMatrix } from '../csr.js';
import { type Id, Ids } from '../data/ids.js';
import { TopknotError } from '../errors.js';
import { runJob } from '../job.js';
import { native } from '../native.js';
import type { Handle } from '../native-ops.js';
import { inSlices } from '../slices.js';
import { full, Tensor } from '../tensor.js';
import type { AlsOptions } from './als.js';

type Factors = Tensor<'float32'>;
type Signal = AbortSignal | undefined;

/** Solves some rows of a factor matrix; each step gives a new matrix and leaves the old one as it was. @internal */
export class AlsRows {
  constructor(
    readonly options: Required<AlsOptions>,
    readonly signal: Signal,
  ) {}

  /** The same matrix with rows of zeros at its end, `rowCount` in all. */
  grow(factors: Factors, rowCount: number): Promise<Factors> {
    return this.#replace(factors, rowCount, new Int32Array(), full([0, factors.shape[1]!]).handle);
  }

  /** Solves the rows `touched` of `factors` from their rows of `matrix`, with `fixed` as it is. */
  async solve(matrix: CsrMatrix, touched: Int32Array, factors: Factors, fixed: Factors): Promise<Factors> {
    const solved = await runJob('long', { signal: this.signal }, async (control) => {
      const rows = await native.csrTakeRows(control, matrix.handles, touched);
      const start = await native.takeRows(control, factors.handle, touched);
      return native.alsSolve(control, rows, fixed.handle, undefined, start, this.options);
    });
    return this.#replace(factors, factors.shape[0]!, touched, solved);
  }

  async #replace(factors: Factors, rowCount: number, rows: Int32Array, values: Handle): Promise<Factors> {
    const { signal } = this;
    return new Tensor(
      await runJob('long', { signal }, (control) =>
        native.replaceRows(control, factors.handle, rowCount, rows, values),
      ),
    );
  }
}

/** `known` with the new ones of `more` at the end, and the row there of each of `more`. @internal */
export async function growIds<T extends Id>(
  name: string,
  known: Ids<T>,
  more: Ids<T>,
  signal: Signal,
): Promise<{ ids: Ids<T>; rowOf: Int32Array }> {
  const rowOf = new Int32Array(more.size);
  if (known.isRange && more.isRange) {
    const ids = Ids.range(Math.max(known.size, more.size)) as Ids as Ids<T>;
    return { ids, rowOf: rowOf.map((_, row) => row) };
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

/** The vectors that `from` has for `ids`, zero for those it does not know. @internal */
export async function gatherRows<T extends Id>(
  known: Ids<T>,
  from: Factors,
  ids: Ids<T>,
  factors: number,
  signal: Signal,
): Promise<Handle> {
  await known.ready();
  const at: number[] = [];
  const rows: number[] = [];
  const visit = (begin: number, end: number) => {
    for (let i = begin; i < end; i++) {
      const row = known.indexOf(ids.at(i));
      if (row < 0) continue;
      at.push(i);
      rows.push(row);
    }
  };
  await inSlices(ids.size, visit, signal);
  return runJob('long', { signal }, async (control) => {
    const vectors = await native.takeRows(control, from.handle, Int32Array.from(rows));
    const empty = full([0, factors]).handle;
    return native.replaceRows(control, empty, ids.size, Int32Array.from(at), vectors);
  });
}
