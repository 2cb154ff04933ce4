import { checkK, knownOptions, oneOf } from '../check.js';
import { CsrMatrix } from '../csr.js';
import type { Id, Ids } from '../data/ids.js';
import { expected, TopknotError } from '../errors.js';
import { checkJob, type JobOptions, onlyJob, runJob } from '../job.js';
import { native } from '../native.js';
import type { Control, Handle } from '../native-ops.js';
import { allowedBits, type ItemFilter, nativeFilter } from '../ops/item-filter.js';
import { metrics, squaredNorms, type VectorMetric } from '../ops/top-k.js';
import { Tensor } from '../tensor.js';
import type { History, HistoryRows } from './history.js';
import { lent } from './lent.js';
import { type Fitted, Model, type Query } from './model.js';
import type { FactorRows } from './partial-fit.js';
import { placed } from './placed.js';
import type { RankCounts, RowFilter, TopKRows } from './recommender.js';
import { checkFilter, checkRows } from './rows.js';

/** A fit of a model whose score is the inner product of a user's row and an item's row. @internal */
export interface FittedFactors<U extends Id, I extends Id> extends Fitted<U, I> {
  /** [users, factors] */
  readonly userFactors: Tensor<'float32'>;
  /** [items, factors] */
  readonly itemFactors: Tensor<'float32'>;
  /** What is multiplied for a score, where biases add columns to the factors; the factors themselves otherwise. */
  readonly scoringUsers?: Tensor<'float32'> | undefined;
  readonly scoringItems?: Tensor<'float32'> | undefined;
}

/** Options of `similarItems` and `similarUsers`. */
export interface SimilarOptions<T extends Id = Id> extends ItemFilter<T>, JobOptions {
  /** How many; 10 unless given, or all others where there are fewer. */
  k?: number | undefined;
  /** 'cosine' unless given. The score of 'l2' is the squared distance: the smallest comes first. */
  metric?: VectorMetric | undefined;
}

/**
 * A model that scores by the inner product of two vectors, plus biases where it has some: search, similarity (of the
 * vectors alone) and scores, all from the factors.
 */
export abstract class FactorModel<U extends Id, I extends Id, S extends FittedFactors<U, I>> extends Model<U, I, S> {
  /** @internal The row of a visitor, which begins with their vector. */
  protected abstract override fold(state: S, history: HistoryRows, control: Control): Promise<Handle | Float32Array>;

  /**
   * The users' vectors, float32 [users, factors], in the order of `users`. Disposing it leaves the model as it is.
   * @throws ERR_NOT_FITTED
   */
  get userFactors(): Tensor<'float32'> {
    return lent(this.state.userFactors);
  }

  /**
   * The items' vectors, float32 [items, factors], in the order of `items`. Disposing it leaves the model as it is.
   * @throws ERR_NOT_FITTED
   */
  get itemFactors(): Tensor<'float32'> {
    return lent(this.state.itemFactors);
  }

  /**
   * The vector, float32 [factors], of somebody with this history, such as a row of `userFactors`: solved with the items as
   * they are, in the way of the model. Of models with biases it is the vector alone; `score` and `recommend` of `{ history }`
   * take the biases into account.
   * @throws ERR_NOT_FITTED, ERR_UNKNOWN_ID; ERR_VALUE for an empty history or a weight that is not positive
   * @example await model.foldIn(['Alien', { item: 'Dune', weight: 2 }]);
   */
  async foldIn(history: History<I>, options: JobOptions = {}): Promise<Float32Array> {
    const row = await this.folded(history, options, (state, rows, control) => this.fold(state, rows, control));
    return row.slice(0, this.state.itemFactors.shape[1]);
  }

  /**
   * The items most like one item, best first, without itself.
   * @throws ERR_NOT_FITTED, ERR_UNKNOWN_ID, ERR_RANGE for k below 1 or above the catalogue
   */
  async similarItems(item: I, options: SimilarOptions<I> = {}): Promise<{ item: I; score: number }[]> {
    return this.reading(async (state) => {
      await state.items.ready();
      const row = state.items.row(item, 'item');
      this.expectKnown(state, 'item', row);
      const found = await similar(
        state.items,
        state.itemFactors,
        row,
        options,
        'the size of the catalogue',
        this.device,
      );
      return found.map(([id, score]) => ({ item: id, score }));
    });
  }

  /**
   * The users most like one user, best first, without themselves.
   * @throws ERR_NOT_FITTED, ERR_UNKNOWN_ID, ERR_RANGE for k below 1 or above the number of users
   */
  async similarUsers(user: U, options: SimilarOptions<U> = {}): Promise<{ user: U; score: number }[]> {
    return this.reading(async (state) => {
      await state.users.ready();
      const row = state.users.row(user, 'user');
      this.expectKnown(state, 'user', row);
      const found = await similar(state.users, state.userFactors, row, options, 'the number of users', this.device);
      return found.map(([id, score]) => ({ user: id, score }));
    });
  }

  async rankCounts(
    userRows: Int32Array,
    positives: CsrMatrix,
    filter: RowFilter = {},
    options: JobOptions = {},
  ): Promise<RankCounts> {
    return this.reading(async (state) => {
      const { users, items } = placedRows(state, this.device);
      onlyJob(options);
      checkRows('userRows', userRows);
      checkFilter(filter);
      if (!(positives instanceof CsrMatrix)) expected('positives', 'a CsrMatrix', positives);
      return runJob('long', options, async (control) => {
        using queries = new Tensor(await native.takeRows(control, users.handle, userRows));
        const { above, equal } = await native.rankCounts(
          control,
          queries.handle,
          items.handle,
          positives.handles,
          nativeFilter(filter),
        );
        return { above: new Tensor<'int32'>(above), equal: new Tensor<'int32'>(equal) };
      });
    });
  }

  /** @internal */
  protected override place(state: S): void {
    placedRows(state, this.device);
  }

  /** @internal */
  protected select(state: S, query: Query, k: number, filter: RowFilter, control: Control): Promise<TopKRows> {
    return native.search(control, ...searchArguments(state, this.device, query, k, filter)) as Promise<TopKRows>;
  }

  /** @internal */
  protected selectSync(state: S, query: Query, k: number, filter: RowFilter): TopKRows {
    return native.searchSync(...searchArguments(state, this.device, query, k, filter)) as TopKRows;
  }

  /** @internal */
  protected async pairScores(state: S, users: Int32Array, items: Int32Array, control: Control): Promise<Float32Array> {
    const rows = placedRows(state, this.device);
    const scores = await native.pairScores(control, rows.users.handle, rows.items.handle, users, items);
    return new Tensor<'float32'>(scores).data();
  }
}

/** What is multiplied for a score. @internal */
export function scoringRows(state: FittedFactors<Id, Id>): FactorRows {
  const { userFactors, itemFactors, scoringUsers = userFactors, scoringItems = itemFactors } = state;
  return { users: scoringUsers, items: scoringItems };
}

/** The same where the model computes. */
function placedRows(state: FittedFactors<Id, Id>, device: string): FactorRows {
  const { users, items } = scoringRows(state);
  return { users: placed(users, device), items: placed(items, device) };
}

function searchArguments(state: FittedFactors<Id, Id>, device: string, query: Query, k: number, filter: RowFilter) {
  const { users, items } = placedRows(state, device);
  const byRow = query instanceof Int32Array;
  return [
    byRow ? users.handle : (query as Float32Array | Handle),
    byRow ? query : undefined,
    items.handle,
    undefined,
    k,
    'innerProduct',
    nativeFilter(filter),
  ] as const;
}

async function similar<T extends Id>(
  ids: Ids<T>,
  factors: Tensor<'float32'>,
  row: number,
  options: SimilarOptions<T>,
  whatMost: string,
  device: string,
): Promise<[id: T, score: number][]> {
  knownOptions(options, ['k', 'metric', 'allow', 'deny', 'signal', 'onProgress']);
  checkJob(options);
  const k = checkK(options.k ?? Math.min(10, ids.size), ids.size, whatMost);
  const metric = oneOf('metric', options.metric ?? 'cosine', metrics);
  if (factors.shape[1] === 0)
    throw new TopknotError(
      'ERR_VALUE',
      'factors: the model has 0, so it has no vectors to compare: fit one with factors',
    );
  const vectors = placed(factors, device);
  const norms: Handle | undefined = metric === 'innerProduct' ? undefined : (await squaredNorms(vectors)).handle;
  const allowed = allowedBits(ids, options, [row]);
  const found = (await runJob('query', options, (control) =>
    native.search(
      control,
      vectors.handle,
      Int32Array.of(row),
      vectors.handle,
      norms,
      k,
      metric,
      nativeFilter({ allowed }),
    ),
  )) as TopKRows;
  const known = Array.from(found.ids).filter((at) => at >= 0);
  return known.map((at, i) => [ids.at(at), found.scores[i]!]);
}
