import type { CsrHandles, CsrMatrix } from '../csr.js';
import type { Id } from '../data/ids.js';
import type { JobOptions } from '../job.js';
import { native } from '../native.js';
import type { Control } from '../native-ops.js';
import { nativeFilter } from '../ops/item-filter.js';
import { Tensor } from '../tensor.js';
import { type Empty, expectInteractions } from './explain.js';
import type { History, HistoryRows } from './history.js';
import { type Fitted, Model, type Query } from './model.js';
import { placed, placedMatrix } from './placed.js';
import type { RowFilter, TopKRows } from './recommender.js';

/** @internal */
export interface FittedLinear<U extends Id, I extends Id> extends Fitted<U, I>, Empty {}

/** W of a linear model, sparse or dense. @internal */
export interface LinearWeights {
  sparse?: CsrMatrix | undefined;
  dense?: Tensor<'float32'> | undefined;
}

/** W as the addon takes it, where the model computes or, for single entries, on the CPU. @internal */
export const weightsOn = ({ sparse, dense }: LinearWeights, device: string) => ({
  sparse: sparse && placedMatrix(sparse, device),
  dense: dense && placed(dense, device).handle,
});

/**
 * A model whose scores are the product of a sparse row, the query, and a matrix W: a history and weights between items,
 * or the nearest users and what they chose.
 */
export abstract class LinearModel<U extends Id, I extends Id, S extends FittedLinear<U, I>> extends Model<U, I, S> {
  /** @internal The queries of the fitted users. */
  protected abstract queries(state: S): CsrHandles;
  /** @internal W. */
  protected abstract weights(state: S): LinearWeights;
  /** @internal */
  protected abstract override fold(state: S, history: HistoryRows, control: Control): Promise<CsrHandles>;
  protected abstract override foldSync(state: S, history: HistoryRows): CsrHandles;

  /**
   * The scores of all items, float32 [items] in the order of `items`, for somebody with this history. There is no vector to
   * fold in: a user of the fit with this history has these very scores.
   * @throws ERR_NOT_FITTED, ERR_UNKNOWN_ID; ERR_VALUE for an empty history or a weight that is not positive
   */
  async scoreItems(history: History<I>, options: JobOptions = {}): Promise<Float32Array> {
    return this.folded(history, options, async (state, rows, control) =>
      native.linearScores(
        control,
        await this.fold(state, rows, control),
        undefined,
        weightsOn(this.weights(state), this.device),
      ),
    );
  }

  /** @internal */
  protected override place(state: S): void {
    weightsOn(this.weights(state), this.device);
  }

  /** @internal */
  protected select(state: S, query: Query, k: number, filter: RowFilter, control: Control): Promise<TopKRows> {
    return native.linearSearch(control, ...this.#arguments(state, query, k, filter)) as Promise<TopKRows>;
  }

  /** @internal */
  protected selectSync(state: S, query: Query, k: number, filter: RowFilter): TopKRows {
    return native.linearSearchSync(...this.#arguments(state, query, k, filter)) as TopKRows;
  }

  /** @internal */
  protected async pairScores(state: S, users: Int32Array, items: Int32Array, control: Control): Promise<Float32Array> {
    const weights = weightsOn(this.weights(state), 'cpu');
    const scores = await native.linearPairScores(control, this.queries(state), weights, users, items);
    return new Tensor<'float32'>(scores).data();
  }

  /** @internal */
  protected override expectKnown(state: S, side: 'user' | 'item', row: number): void {
    expectInteractions(this.constructor.name, state, side, row);
  }

  #arguments(state: S, query: Query, k: number, filter: RowFilter) {
    const rows = query instanceof Int32Array ? query : undefined;
    const queries = rows ? this.queries(state) : (query as CsrHandles);
    return [queries, rows, weightsOn(this.weights(state), this.device), k, nativeFilter(filter)] as const;
  }
}
