import { checkK, integer, knownOptions } from '../check.js';
import { type CsrHandles, CsrMatrix } from '../csr.js';
import type { Id } from '../data/ids.js';
import { expected } from '../errors.js';
import { type JobOptions, runJob } from '../job.js';
import { native } from '../native.js';
import type { Control } from '../native-ops.js';
import { allowedBits } from '../ops/item-filter.js';
import type { ExplainOptions } from './explain.js';
import { type HistoryRows, historyMatrix, historyRows } from './history.js';
import type { NeighbourListOptions } from './item-weights-model.js';
import { type FittedLinear, LinearModel, type LinearWeights, weightsOn } from './linear-model.js';
import { type CheckedInteractions, checkedInteractions, type Fittable, stats, type Visitor } from './model.js';
import { indexOn, type NeighbourIndex, neighbourIndex } from './neighbour-index.js';
import { checkNeighbourOptions, type NeighbourOptions } from './neighbour-options.js';
import { type LoadOptions, matrixTensors, readModel, restored } from './persist.js';

/** Options of UserKNN. */
export type UserKNNOptions = NeighbourOptions;

/** Which users carry a score. */
export interface UserExplanation<U extends Id = Id> {
  /** The sum of the contributions of all neighbours. */
  score: number;
  /** The largest first. */
  contributions: { user: U; contribution: number }[];
}

/** @internal */
interface FittedUserKNN<U extends Id, I extends Id> extends FittedLinear<U, I>, NeighbourIndex {
  /** [users, users], row u: the neighbours of u. What a NeighbourIndex has finds those of a visitor. */
  readonly neighbours: CsrMatrix;
}

/**
 * User neighbours: the score of item j is Σ s_uv v_j over the k nearest neighbours v of the user, v_j being the value of
 * v for j. Herlocker, Konstan, Borchers, Riedl, "An algorithmic framework for performing collaborative filtering",
 * SIGIR 1999, without ratings' means.
 */
export class UserKNN<U extends Id = Id, I extends Id = Id> extends LinearModel<U, I, FittedUserKNN<U, I>> {
  readonly options: Readonly<Required<UserKNNOptions>>;

  /** @throws ERR_ARGUMENT, ERR_RANGE */
  constructor(options: UserKNNOptions = {}) {
    super();
    this.options = Object.freeze(checkNeighbourOptions(options));
  }

  /**
   * Finds the neighbours of every user. `onProgress` counts users.
   * @throws ERR_VALUE for no interactions or a negative weight; ERR_BUSY while another fit of this model runs
   */
  fit(interactions: Fittable<U, I>, options: JobOptions = {}): Promise<this> {
    return this.replace(async () => {
      knownOptions(options, ['signal', 'onProgress']);
      const data = await checkedInteractions(interactions, options);
      const index = await neighbourIndex(data.seen.handles, this.options, { signal: options.signal });
      const neighbours = await runJob('long', options, (control) =>
        native.neighbours(control, data.seen.handles, indexOn(index, this.device), true, this.options),
      );
      return complete(data, new CsrMatrix(neighbours), index);
    }, options);
  }

  /** Reads what `save` wrote: the same answers, bit for bit. @throws ERR_IO, ERR_FORMAT */
  static async load<U extends Id = Id, I extends Id = Id>(
    path: string,
    options: LoadOptions = {},
  ): Promise<UserKNN<U, I>> {
    const sparse = { neighbours: (users: number) => [users, users] };
    const file = await readModel<U, I, UserKNNOptions, never, 'neighbours'>(path, 'user-knn', {}, options, sparse);
    const model = restored(path, () => new UserKNN<U, I>(file.options));
    const { emptyUsers, emptyItems } = await stats(file.seen, options.signal);
    return model.replace(async () => {
      const index = await neighbourIndex(file.seen.handles, model.options, { signal: options.signal });
      return complete({ ...file, emptyUsers, emptyItems }, file.matrices.get('neighbours')!, index);
    });
  }

  /**
   * The nearest users, best first: at most as many as the fit keeps, of a similarity above 0.
   * @throws ERR_NOT_FITTED, ERR_UNKNOWN_ID, ERR_RANGE for k below 1 or above the number of users
   */
  async similarUsers(user: U, options: NeighbourListOptions<U> = {}): Promise<{ user: U; score: number }[]> {
    const state = this.state;
    const { users } = state;
    knownOptions(options, ['k', 'allow', 'deny', 'signal', 'onProgress']);
    const k = checkK(options.k ?? Math.min(10, users.size), users.size, 'the number of users');
    await users.ready();
    const row = users.row(user, 'user');
    this.expectKnown(state, 'user', row);
    const allowed = allowedBits(users, options);
    const may = (at: number) => allowed === undefined || (allowed[at >> 6]! >> BigInt(at & 63)) & 1n;
    const [rows, scores] = await runJob('query', options, async (control) => {
      const nearest = await native.csrTakeRows(control, state.neighbours.handles, Int32Array.of(row));
      return [await native.read(nearest.indices), await native.read(nearest.values)] as [Int32Array, Float32Array];
    });
    const list = Array.from(rows, (at, i) => ({ at, score: scores[i]! })).filter(({ at }) => may(at));
    list.sort((a, b) => b.score - a.score || a.at - b.at);
    return list.slice(0, k).map(({ at, score }) => ({ user: users.at(at), score }));
  }

  /**
   * Which neighbours carry the score of an item: the terms s_uv v_j of the sum that it is, those that are not 0.
   *
   * @param who a user of the fit, or `{ history }` of somebody who is not among them
   * @throws ERR_NOT_FITTED, ERR_UNKNOWN_ID; ERR_VALUE for a user without interactions
   */
  async explain(who: U | Visitor<I>, item: I, options: ExplainOptions = {}): Promise<UserExplanation<U>> {
    const state = this.state;
    const { users, items } = state;
    knownOptions(options, ['k', 'signal', 'onProgress']);
    const k = integer('k', options.k ?? 10, 1);
    await Promise.all([users.ready(), items.ready()]);
    const target = items.row(item, 'item');
    if (who === null || who === undefined) expected('who', 'a user or { history }', who);
    const history = typeof who === 'object' ? historyRows(items, who.history) : users.row(who, 'user');
    if (typeof history === 'number') this.expectKnown(state, 'user', history);
    const [rows, parts] = await runJob('query', options, async (control) => {
      const nearest =
        typeof history === 'number'
          ? await native.csrTakeRows(control, state.neighbours.handles, Int32Array.of(history))
          : await this.fold(state, history, control);
      const parts = await native.linearContributions(control, nearest, weightsOn(this.weights(state), 'cpu'), target);
      return [await native.read(nearest.indices), await native.read(parts)] as [Int32Array, Float32Array];
    });
    const all = Array.from(rows, (row, i) => ({ user: users.at(row), contribution: parts[i]! }));
    const contributions = all.filter((c) => c.contribution !== 0).sort((a, b) => b.contribution - a.contribution);
    return {
      score: contributions.reduce((sum, c) => sum + c.contribution, 0),
      contributions: contributions.slice(0, k),
    };
  }

  /** @internal */
  protected saved(state: FittedUserKNN<U, I>) {
    return { model: 'user-knn', tensors: matrixTensors('neighbours', state.neighbours) };
  }

  /** @internal */
  protected queries(state: FittedUserKNN<U, I>): CsrHandles {
    return state.neighbours.handles;
  }

  /** @internal */
  protected weights(state: FittedUserKNN<U, I>): LinearWeights {
    return { sparse: state.seen };
  }

  /** @internal */
  protected fold(state: FittedUserKNN<U, I>, history: HistoryRows, control: Control): Promise<CsrHandles> {
    const row = historyMatrix(history, state.items.size);
    return native.neighbours(control, row, indexOn(state, this.device), false, this.options);
  }

  /** @internal */
  protected foldSync(state: FittedUserKNN<U, I>, history: HistoryRows): CsrHandles {
    const row = historyMatrix(history, state.items.size);
    return native.neighboursSync(row, indexOn(state, this.device), false, this.options);
  }
}

function complete<U extends Id, I extends Id>(
  { users, items, seen, emptyUsers, emptyItems }: CheckedInteractions<U, I>,
  neighbours: CsrMatrix,
  index: NeighbourIndex,
): FittedUserKNN<U, I> {
  return { users, items, seen, emptyUsers, emptyItems, neighbours, ...index };
}
