import { deviceName, integer, knownOptions, positive } from '../check.js';
import { CsrMatrix } from '../csr.js';
import type { Id } from '../data/ids.js';
import { type JobOptions, runJob } from '../job.js';
import { native } from '../native.js';
import { Tensor } from '../tensor.js';
import { ItemWeightsModel } from './item-weights-model.js';
import type { FittedLinear, LinearWeights } from './linear-model.js';
import { type CheckedInteractions, checkedInteractions, type Fittable, stats } from './model.js';
import { type LoadOptions, matrixTensors, readModel, restored } from './persist.js';

export interface EASEOptions {
  /** λ, above 0; 500 unless given. The fewer interactions there are, the smaller it should be. */
  regularization?: number;
  /**
   * How many weights are kept for each item, the largest by magnitude: 0, all of them, unless given. All take
   * 4 · items² bytes, in memory and in the file. What truncation does to quality depends on the data and on λ: 50 improve
   * goodbooks (recall@20 by 4 % at λ 200); on the sparse movietweetings they cost 5 % of it at λ 200, but two thirds at λ 5.
   * Measure with `evaluate` before truncating.
   */
  neighbours?: number;
  /** Where the model computes; 'cpu' unless given: see `device()` for the names, docs/gpu.md for what stays on the CPU. */
  device?: string;
}

/** @internal One of the two matrices is there. */
interface FittedEase<U extends Id, I extends Id> extends FittedLinear<U, I> {
  readonly sparse: CsrMatrix | undefined;
  readonly dense: Tensor<'float32'> | undefined;
}

const all = ({ neighbours = 0 }: EASEOptions) => neighbours === 0;
const shapes = {
  weights: (_users: number, items: number, options: EASEOptions) => (all(options) ? [items, items] : undefined),
};
const sparseShapes = {
  weights: (_users: number, items: number, options: EASEOptions) => (all(options) ? undefined : [items, items]),
};

/**
 * Weights between all items in closed form: the B of a zero diagonal that minimises |X - X B|² + λ |B|². Steck,
 * "Embarrassingly shallow autoencoders for sparse data", WWW 2019. Scores are X B, so a history of anybody is scored as
 * that of a user of the fit.
 *
 * It takes n³ operations, n being the items or the users, whichever are fewer: a second for 3,000, minutes for 40,000; and
 * 4 n² bytes, beside those of the weights.
 */
export class EASE<U extends Id = Id, I extends Id = Id> extends ItemWeightsModel<U, I, FittedEase<U, I>> {
  readonly options: Readonly<Required<EASEOptions>>;

  /** @throws ERR_ARGUMENT, ERR_RANGE */
  constructor(options: EASEOptions = {}) {
    super();
    knownOptions(options, ['regularization', 'neighbours', 'device']);
    const regularization = positive('regularization', options.regularization ?? 500);
    this.options = Object.freeze({
      regularization,
      neighbours: integer('neighbours', options.neighbours ?? 0, 0),
      device: deviceName(options.device ?? 'cpu'),
    });
  }

  /**
   * Solves for the weights. `onProgress` counts items.
   * @throws ERR_VALUE for no interactions, a negative weight, or a regularization too small for float32; ERR_MEMORY, at
   * once, where the weights do not fit; ERR_BUSY while another fit of this model runs
   */
  fit(interactions: Fittable<U, I>, options: JobOptions = {}): Promise<this> {
    return this.replace(async () => {
      knownOptions(options, ['signal', 'onProgress']);
      const data = await checkedInteractions(interactions, options);
      const { sparse, dense } = await runJob('long', options, (control) =>
        native.easeFit(control, data.seen.handles, this.options),
      );
      return fitted(data, sparse && new CsrMatrix(sparse), dense && new Tensor<'float32'>(dense));
    }, options);
  }

  /** Reads what `save` wrote: the same answers, bit for bit. @throws ERR_IO, ERR_FORMAT */
  static async load<U extends Id = Id, I extends Id = Id>(
    path: string,
    options: LoadOptions = {},
  ): Promise<EASE<U, I>> {
    const file = await readModel<U, I, EASEOptions, 'weights', 'weights'>(path, 'ease', shapes, options, sparseShapes);
    const model = restored(path, () => new EASE<U, I>(file.options));
    const empty = await stats(file.seen, options.signal);
    return model.replace(() =>
      fitted({ ...file, ...empty }, file.matrices.get('weights'), file.tensors.get('weights')),
    );
  }

  /** @internal */
  protected saved({ sparse, dense }: FittedEase<U, I>) {
    const tensors: (readonly [string, Tensor])[] = dense
      ? [['weights', dense]]
      : [...matrixTensors('weights', sparse!)];
    return { model: 'ease', tensors };
  }

  /** @internal */
  protected weights({ sparse, dense }: FittedEase<U, I>): LinearWeights {
    return { sparse, dense };
  }
}

function fitted<U extends Id, I extends Id>(
  { users, items, seen, emptyUsers, emptyItems }: CheckedInteractions<U, I>,
  sparse: CsrMatrix | undefined,
  dense: Tensor<'float32'> | undefined,
): FittedEase<U, I> {
  return { users, items, seen, emptyUsers, emptyItems, sparse, dense };
}
