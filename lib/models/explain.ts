import { integer, knownOptions } from '../check.js';
import type { CsrHandles } from '../csr.js';
import type { Id } from '../data/ids.js';
import { expected, TopknotError } from '../errors.js';
import { type JobOptions, runJob } from '../job.js';
import { native } from '../native.js';
import type { Control, Handle } from '../native-ops.js';
import { historyMatrix, historyRows } from './history.js';
import type { Fitted, Visitor } from './model.js';

/** Which past items carry a score. */
export interface Explanation<I extends Id = Id> {
  /** The sum of the baseline and the contributions of the whole history. */
  score: number;
  /** What the item scores without any history: its bias, or μ + b_i of models of ratings; 0 where there are no biases. */
  baseline: number;
  /** What each item of the history adds, the largest first. */
  contributions: { item: I; contribution: number }[];
}

/** Options of `explain`. */
export interface ExplainOptions extends JobOptions {
  /** How many contributions to list, the largest first; 10 unless given. `score` sums up all. */
  k?: number | undefined;
}

/** The rows and columns of a fit that have no interactions. @internal */
export interface Empty {
  readonly emptyUsers: ReadonlySet<number>;
  readonly emptyItems: ReadonlySet<number>;
}

/** Throws ERR_VALUE for a user or an item without interactions. @internal */
export function expectInteractions(
  model: string,
  state: Fitted<Id, Id> & Empty,
  side: 'user' | 'item',
  row: number,
): void {
  const [empty, ids] = side === 'user' ? [state.emptyUsers, state.users] : [state.emptyItems, state.items];
  if (!empty.has(row)) return;
  throw new TopknotError(
    'ERR_VALUE',
    `${side}: '${ids.at(row)}' has no interactions in the fit, so ${model} knows nothing of it and every score would ` +
      `be 0${side === 'user' ? ': recommend by { history }, or by Popularity' : ''}`,
  );
}

/** The entries of a history: as a matrix of one row, and as arrays. @internal */
export interface HistoryEntries {
  readonly matrix: CsrHandles;
  readonly rows: Int32Array;
  readonly weights: Float32Array;
}

/**
 * An explanation by the items of a history: `contributionsOf` gives one contribution for each of its entries. `unrated` as
 * `historyRows` takes it.
 * @internal
 */
export async function explainByHistory<U extends Id, I extends Id>(
  model: string,
  state: Fitted<U, I> & Empty,
  who: U | Visitor<I>,
  item: I,
  options: ExplainOptions,
  contributionsOf: (
    history: HistoryEntries,
    target: number,
    control: Control,
  ) => Promise<{ contributions: Handle | Float32Array; baseline?: number }>,
  unrated?: number,
): Promise<Explanation<I>> {
  const { users, items } = state;
  knownOptions(options, ['k', 'signal', 'onProgress']);
  const k = integer('k', options.k ?? 10, 1);
  await Promise.all([users.ready(), items.ready()]);
  const target = items.row(item, 'item');
  if (who === null || who === undefined) expected('who', 'a user or { history }', who);
  const history = typeof who === 'object' ? historyRows(items, who.history, unrated) : users.row(who, 'user');
  if (typeof history === 'number') expectInteractions(model, state, 'user', history);
  const entriesOf = async (control: Control): Promise<HistoryEntries> => {
    if (typeof history !== 'number') return { matrix: historyMatrix(history, items.size), ...history };
    const matrix = await native.csrTakeRows(control, state.seen.handles, Int32Array.of(history));
    const [rows, weights] = [await native.read(matrix.indices), await native.read(matrix.values)];
    return { matrix, rows: rows as Int32Array, weights: weights as Float32Array };
  };
  const { rows, parts, baseline } = await runJob('query', options, async (control) => {
    const entries = await entriesOf(control);
    const { contributions: found, baseline = 0 } = await contributionsOf(entries, target, control);
    const parts = found instanceof Float32Array ? found : ((await native.read(found)) as Float32Array);
    return { rows: entries.rows, parts, baseline };
  });
  const contributions = Array.from(rows, (at, i) => ({ item: items.at(at), contribution: parts[i]! }));
  const score = contributions.reduce((sum, c) => sum + c.contribution, baseline);
  const listed = contributions.sort((a, b) => b.contribution - a.contribution).slice(0, k);
  return { score, baseline, contributions: listed };
}
