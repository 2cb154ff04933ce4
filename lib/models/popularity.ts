import { knownOptions, oneOf } from '../check.js';
import type { Id } from '../data/ids.js';
import { type JobOptions, runJob } from '../job.js';
import { native } from '../native.js';
import { full, Tensor } from '../tensor.js';
import { FactorModel, type FittedFactors } from './factor-model.js';
import { checkedInteractions, type Fittable } from './model.js';
import { readModel, restored } from './persist.js';

export interface PopularityOptions {
  /** What an item's score is: 'users' counts who interacted with it, 'weights' adds up the values. 'users' unless given. */
  by?: 'users' | 'weights';
}

/**
 * The baseline that recommends what most users chose: the same list to everyone, less what each has seen.
 * As a factor model of one factor, 1 for users and the item's popularity for items.
 */
export class Popularity<U extends Id = Id, I extends Id = Id> extends FactorModel<U, I, FittedFactors<U, I>> {
  readonly options: Readonly<Required<PopularityOptions>>;

  /** @throws ERR_ARGUMENT */
  constructor(options: PopularityOptions = {}) {
    super();
    knownOptions(options, ['by']);
    this.options = Object.freeze({ by: oneOf('by', options.by ?? 'users', ['users', 'weights'] as const) });
  }

  /** Counts. @throws ERR_VALUE for no interactions or a negative weight; ERR_BUSY while another fit of this model runs */
  fit(interactions: Fittable<U, I>, options: JobOptions = {}): Promise<this> {
    return this.replace(async () => {
      knownOptions(options, ['signal', 'onProgress']);
      const data = await checkedInteractions(interactions, options);
      const sums = await runJob('long', options, (control) =>
        native.csrColumnSums(control, data.seen.handles, this.options.by === 'weights'),
      );
      options.onProgress?.({ done: 1, total: 1 });
      return {
        users: data.users,
        items: data.items,
        seen: data.seen,
        userFactors: full([data.users.size, 1], { value: 1 }),
        itemFactors: new Tensor<'float32'>(sums).reshape([data.items.size, 1]),
      };
    }, options);
  }

  /** Reads what `save` wrote. @throws ERR_IO, ERR_FORMAT */
  static async load<U extends Id = Id, I extends Id = Id>(
    path: string,
    options: JobOptions = {},
  ): Promise<Popularity<U, I>> {
    const shapes = { popularity: (_users: number, items: number) => [items, 1] };
    const file = await readModel<U, I, PopularityOptions, 'popularity'>(path, 'popularity', shapes, options);
    const { users, items, seen, tensors } = file;
    return restored(path, () => new Popularity<U, I>(file.options)).replace(() => ({
      users,
      items,
      seen,
      userFactors: full<'float32'>([users.size, 1], { value: 1 }),
      itemFactors: tensors.get('popularity')!,
    }));
  }

  /** @internal */
  protected saved(state: FittedFactors<U, I>) {
    return { model: 'popularity', tensors: [['popularity', state.itemFactors] as const] };
  }

  /** @internal */
  protected async fold(): Promise<Float32Array> {
    return this.foldSync();
  }

  /** @internal */
  protected foldSync(): Float32Array {
    return Float32Array.of(1);
  }
}
