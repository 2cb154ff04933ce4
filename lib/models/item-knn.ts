import { boolean, knownOptions } from '../check.js';
import { CsrMatrix } from '../csr.js';
import type { Id } from '../data/ids.js';
import { type JobOptions, runJob } from '../job.js';
import { native } from '../native.js';
import { ItemWeightsModel } from './item-weights-model.js';
import type { FittedLinear, LinearWeights } from './linear-model.js';
import { type CheckedInteractions, checkedInteractions, type Fittable, stats } from './model.js';
import { disposeIndex, indexOn, neighbourIndex } from './neighbour-index.js';
import { checkNeighbourOptions, type NeighbourOptions } from './neighbour-options.js';
import { type LoadOptions, matrixTensors, readModel, restored } from './persist.js';

export interface ItemKNNOptions extends NeighbourOptions {
  /** Divides the score of an item by the sum of the similarities of its neighbours: a weighted mean of the history. false unless given. */
  normalize?: boolean;
}

/** @internal */
interface FittedItemKNN<U extends Id, I extends Id> extends FittedLinear<U, I> {
  /** [items, items], row j: the neighbours of j. */
  readonly neighbours: CsrMatrix;
  /** Their transpose, normalised where that is asked for. */
  readonly matrix: CsrMatrix;
}

/**
 * Item neighbours: the score of item j is Σ history_i s_ij over the k nearest neighbours i of j that are in the history.
 * Sarwar, Karypis, Konstan, Riedl, "Item-based collaborative filtering recommendation algorithms", WWW 2001.
 *
 * @example
 * const model = await new ItemKNN({ neighbours: 50, similarity: 'tfidf' }).fit(ratings);
 * await model.explain('ann', 'dune');
 */
export class ItemKNN<U extends Id = Id, I extends Id = Id> extends ItemWeightsModel<U, I, FittedItemKNN<U, I>> {
  readonly options: Readonly<Required<ItemKNNOptions>>;

  /** @throws ERR_ARGUMENT, ERR_RANGE */
  constructor(options: ItemKNNOptions = {}) {
    super();
    const common = checkNeighbourOptions(options, ['normalize']);
    this.options = Object.freeze({ ...common, normalize: boolean('normalize', options.normalize ?? false) });
  }

  /**
   * Finds the neighbours of every item. `onProgress` counts items.
   * @throws ERR_VALUE for no interactions or a negative weight; ERR_BUSY while another fit of this model runs
   */
  fit(interactions: Fittable<U, I>, options: JobOptions = {}): Promise<this> {
    return this.replace(async () => {
      knownOptions(options, ['signal', 'onProgress']);
      const { signal } = options;
      const data = await checkedInteractions(interactions, options);
      const byItem = await runJob('long', { signal }, (control) => native.csrTranspose(control, data.seen.handles));
      const index = await neighbourIndex(byItem, this.options, { signal });
      const neighbours = await runJob('long', options, (control) =>
        native.neighbours(control, byItem, indexOn(index, this.device), true, this.options),
      );
      disposeIndex(index);
      return this.#complete(data, new CsrMatrix(neighbours), signal);
    }, options);
  }

  /** Reads what `save` wrote: the same answers, bit for bit. @throws ERR_IO, ERR_FORMAT */
  static async load<U extends Id = Id, I extends Id = Id>(
    path: string,
    options: LoadOptions = {},
  ): Promise<ItemKNN<U, I>> {
    const sparse = { neighbours: (_users: number, items: number) => [items, items] };
    const file = await readModel<U, I, ItemKNNOptions, never, 'neighbours'>(path, 'item-knn', {}, options, sparse);
    const model = restored(path, () => new ItemKNN<U, I>(file.options));
    const { emptyUsers, emptyItems } = await stats(file.seen, options.signal);
    return model.replace(() =>
      model.#complete({ ...file, emptyUsers, emptyItems }, file.matrices.get('neighbours')!, options.signal),
    );
  }

  async #complete(
    { users, items, seen, emptyUsers, emptyItems }: CheckedInteractions<U, I>,
    neighbours: CsrMatrix,
    signal: AbortSignal | undefined,
  ): Promise<FittedItemKNN<U, I>> {
    const matrix = await runJob('long', { signal }, (control) =>
      native.neighbourWeights(control, neighbours.handles, this.options.normalize),
    );
    return { users, items, seen, emptyUsers, emptyItems, neighbours, matrix: new CsrMatrix(matrix) };
  }

  /** @internal */
  protected saved(state: FittedItemKNN<U, I>) {
    return { model: 'item-knn', tensors: matrixTensors('neighbours', state.neighbours) };
  }

  /** @internal */
  protected weights(state: FittedItemKNN<U, I>): LinearWeights {
    return { sparse: state.matrix };
  }

  /** @internal */
  protected override similarities(state: FittedItemKNN<U, I>): LinearWeights {
    return { sparse: state.neighbours };
  }
}
