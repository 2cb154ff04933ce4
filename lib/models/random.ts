import { integer, knownOptions } from '../check.js';
import type { Id } from '../data/ids.js';
import { TopknotError } from '../errors.js';
import type { JobOptions } from '../job.js';
import { native } from '../native.js';
import type { Control } from '../native-ops.js';
import { nativeFilter } from '../ops/item-filter.js';
import { Tensor } from '../tensor.js';
import { checkedInteractions, type Fittable, type Fitted, Model } from './model.js';
import { readModel, restored } from './persist.js';
import type { RowFilter, TopKRows } from './recommender.js';

export interface RandomOptions {
  /** 42 unless given. */
  seed?: number;
}

/** Scores held in memory at once: 64 MB. */
const scoresPerBlock = 1 << 24;

/**
 * The baseline that knows nothing: scores uniform in [0, 1), a pure function of (seed, row of the user, row of the item).
 * All visitors, who have no row, share one more.
 */
export class Random<U extends Id = Id, I extends Id = Id> extends Model<U, I, Fitted<U, I>> {
  readonly options: Readonly<Required<RandomOptions>>;

  /** @throws ERR_ARGUMENT, ERR_RANGE */
  constructor(options: RandomOptions = {}) {
    super();
    knownOptions(options, ['seed']);
    this.options = Object.freeze({ seed: integer('seed', options.seed ?? 42, 0) });
  }

  /** Learns who and what there is. @throws ERR_VALUE for no interactions or a negative weight; ERR_BUSY */
  fit(interactions: Fittable<U, I>, options: JobOptions = {}): Promise<this> {
    return this.replace(async () => {
      knownOptions(options, ['signal', 'onProgress']);
      const { users, items, seen } = await checkedInteractions(interactions, options);
      options.onProgress?.({ done: 1, total: 1 });
      return { users, items, seen };
    }, options);
  }

  /** Reads what `save` wrote. @throws ERR_IO, ERR_FORMAT */
  static async load<U extends Id = Id, I extends Id = Id>(
    path: string,
    options: JobOptions = {},
  ): Promise<Random<U, I>> {
    const { users, items, seen, ...file } = await readModel<U, I, RandomOptions, never>(path, 'random', {}, options);
    return restored(path, () => new Random<U, I>(file.options)).replace(() => ({ users, items, seen }));
  }

  /** @internal */
  protected saved() {
    return { model: 'random', tensors: [] };
  }

  /** @internal */
  protected async select(
    state: Fitted<U, I>,
    query: Int32Array,
    k: number,
    filter: RowFilter,
    control: Control,
  ): Promise<TopKRows> {
    const items = state.items.size;
    expectRows(query, state.users.size, 'userRows');
    const block = Math.max(1, Math.floor(scoresPerBlock / items));
    const out = { ids: new Int32Array(query.length * k), scores: new Float32Array(query.length * k) };
    for (let begin = 0; begin < query.length; begin += block) {
      const rows = query.subarray(begin, begin + block);
      const scores = new Tensor(await native.randomScores(control, this.options.seed, rows, items));
      const part = blockFilter(filter, begin, rows.length);
      const best = await native.selectTopk(control, scores.handle, k, part);
      scores.dispose();
      out.ids.set(await new Tensor<'int32'>(best.ids).data(), begin * k);
      out.scores.set(await new Tensor<'float32'>(best.scores).data(), begin * k);
    }
    return out;
  }

  /** @internal */
  protected selectSync(state: Fitted<U, I>, query: Int32Array, k: number, filter: RowFilter): TopKRows {
    const scores = native.randomScoresSync(this.options.seed, query, state.items.size);
    const best = native.selectTopkSync(scores, k, blockFilter(filter, 0, query.length));
    return { ids: native.readSync(best.ids) as Int32Array, scores: native.readSync(best.scores) as Float32Array };
  }

  /** @internal */
  protected async pairScores(
    state: Fitted<U, I>,
    users: Int32Array,
    items: Int32Array,
    control: Control,
  ): Promise<Float32Array> {
    expectRows(users, state.users.size - 1, 'userRows');
    expectRows(items, state.items.size - 1, 'itemRows');
    return new Tensor<'float32'>(await native.randomPairScores(control, this.options.seed, users, items)).data();
  }

  /** @internal */
  protected async fold(state: Fitted<U, I>): Promise<Int32Array> {
    return this.foldSync(state);
  }

  /** @internal */
  protected foldSync(state: Fitted<U, I>): Int32Array {
    return Int32Array.of(state.users.size);
  }
}

/** The filter of some consecutive queries. Without rows of its own, query q has row q. */
function blockFilter(filter: RowFilter, begin: number, count: number) {
  if (!filter.seen) return nativeFilter(filter);
  const seenRows =
    filter.seenRows?.subarray(begin, begin + count) ?? Int32Array.from({ length: count }, (_, i) => begin + i);
  return nativeFilter({ ...filter, seenRows });
}

function expectRows(rows: Int32Array, last: number, name: string): void {
  const wrong = rows.find((row) => row < 0 || row > last);
  if (wrong !== undefined)
    throw new TopknotError('ERR_RANGE', `${name}: expected rows in 0 to ${last} but received ${wrong}`);
}
