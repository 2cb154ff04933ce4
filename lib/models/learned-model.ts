import { knownOptions } from '../check.js';
import type { CsrHandles } from '../csr.js';
import type { Id } from '../data/ids.js';
import { runJob } from '../job.js';
import { native } from '../native.js';
import type { Control, Handle } from '../native-ops.js';
import { FactorModel, type FittedFactors, scoringRows } from './factor-model.js';
import { type CheckedInteractions, checkedInteractions, type Fittable, type Fitted } from './model.js';
import { type FactorRows, learnOn, type PartialFitOptions, type TouchedRows } from './partial-fit.js';
import { type FitOptions, gatherRows } from './warm-start.js';

/** What a fit starts with. @internal */
export interface Beginning<U extends Id, I extends Id, S> {
  readonly data: CheckedInteractions<U, I>;
  /** The transpose of `data.seen`. */
  readonly byItem: CsrHandles;
  /** With `warmStart`: the last fit, and its rows for the users and items of these interactions. */
  readonly last: S | undefined;
  readonly users: Handle | undefined;
  readonly items: Handle | undefined;
}

/**
 * A factor model that learns both its sides from interactions, so that it can go on: with a warm start from all of them, or
 * with `partialFit` for the users and items that are new or have changed.
 */
export abstract class LearnedModel<U extends Id, I extends Id, S extends FittedFactors<U, I>> extends FactorModel<
  U,
  I,
  S
> {
  /** @internal Solves rows with the other side as it is; `state` is the last fit. */
  protected abstract solve(state: S, touched: TouchedRows, control: Control): Promise<Handle>;
  /** @internal A fit of these rows. */
  protected abstract withRows(
    state: S,
    data: Fitted<U, I>,
    rows: FactorRows,
    signal: AbortSignal | undefined,
  ): Promise<S>;

  /** @internal The rows that are learned. */
  protected rows(state: S): FactorRows {
    return scoringRows(state);
  }

  /** @internal The row of a user or an item of which nothing is known; zeros unless a model says otherwise. */
  protected freshRow(state: S, side: keyof FactorRows): Float32Array {
    return new Float32Array(this.rows(state)[side].shape[1]!);
  }

  /**
   * Takes in new interactions of new or known users and items without learning anew. They are merged with those of the
   * fit; then every user named in them is solved again from the merged history with the items fixed, then every item
   * named in them with the users fixed, and, after items, those users once more. Ids grow at the end; no other vector changes.
   * How a row is solved is said of each model; where it is by least squares it is exact (`ALS` with 'cg' takes its `cgSteps`),
   * where it is by steps there are as many as in a fit (`NMF`: 200 passes).
   *
   * With `update: 'users'` new items stay as if nothing were known of them, and the other way round.
   * @throws ERR_NOT_FITTED, ERR_BUSY, ERR_VALUE; ERR_ARGUMENT for ids of another type than those of the fit
   */
  partialFit(interactions: Fittable<U, I>, options: PartialFitOptions = {}): Promise<this> {
    return this.replace(async () => {
      const state = this.state;
      const fresh = { users: this.freshRow(state, 'users'), items: this.freshRow(state, 'items') };
      const solve = (touched: TouchedRows, control: Control) => this.solve(state, touched, control);
      const learned = await learnOn(state, this.rows(state), interactions, options, { fresh, solve });
      return this.withRows(state, learned, learned.rows, options.signal);
    }, options);
  }

  /** @internal Checks the arguments of `fit`. */
  protected async begin(
    previous: S | undefined,
    interactions: Fittable<U, I>,
    options: FitOptions,
  ): Promise<Beginning<U, I, S>> {
    knownOptions(options, ['warmStart', 'signal', 'onProgress']);
    const { signal } = options;
    const data = await checkedInteractions(interactions, options);
    const last = this.startOf(previous, options);
    const rows = last && this.rows(last);
    const users = rows && (await gatherRows(last.users, rows.users, data.users, signal));
    const items = rows && (await gatherRows(last.items, rows.items, data.items, signal));
    const byItem = await runJob('long', { signal }, (control) => native.csrTranspose(control, data.seen.handles));
    return { data, byItem, last, users, items };
  }
}
