import { isObject } from '../check.js';
import { expected } from '../errors.js';
import type { RowFilter } from './recommender.js';

/** An argument of row numbers. @internal */
export function checkRows(name: string, rows: unknown): asserts rows is Int32Array {
  if (!(rows instanceof Int32Array)) expected(name, 'row numbers in an Int32Array', rows);
}

/** A filter by row numbers. `seen` and `allowed` are checked where they are used. @internal */
export function checkFilter(filter: RowFilter): void {
  isObject('filter', filter);
  if (filter.seenRows !== undefined) checkRows('filter.seenRows', filter.seenRows);
}
