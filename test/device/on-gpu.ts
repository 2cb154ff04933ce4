// topknot as the tests of the operations see it when they run for the GPU (vitest.config.ts): tensors are made there, and
// all else is as it is. What `cast` cannot do there yet is done on the way.

import type { DType } from '../../lib/index.js';
import * as topknot from '../../lib/index.js';

export * from '../../lib/index.js';

const device = 'cuda';
export const tensor: typeof topknot.tensor = (data, options = {}) =>
  topknot.tensor(data, options === null ? options : { device, ...options });
export const full: typeof topknot.full = (shape, options = {}) =>
  topknot.full(shape, options === null ? options : { device, ...options });
/** Instruction sets are the CPU's. */
export const isas = (): readonly string[] => [topknot.isa()];

const { cast } = topknot.Tensor.prototype;
topknot.Tensor.prototype.cast = function <E extends DType>(this: topknot.Tensor, dtype: E): topknot.Tensor<E> {
  return cast.call(this.to('cpu'), dtype).to(this.device) as topknot.Tensor<E>;
};
