// topknot as the tests of the operations see it when they run for the GPU (vitest.config.ts): tensors and layers are made
// there, and all else is as it is.
import * as topknot from '../../lib/index.js';

export * from '../../lib/index.js';

const device = 'cuda';
export const tensor: typeof topknot.tensor = (data, options = {}) =>
  topknot.tensor(data, options === null ? options : { device, ...options });
export const full: typeof topknot.full = (shape, options = {}) =>
  topknot.full(shape, options === null ? options : { device, ...options });
/** Instruction sets are the CPU's. */
export const isas = (): readonly string[] => [topknot.isa()];

export class MultiHeadAttention extends topknot.MultiHeadAttention {
  static override async create(...[embedDim, heads, init]: Parameters<typeof topknot.MultiHeadAttention.create>) {
    return topknot.MultiHeadAttention.create(embedDim, heads, { device, ...init });
  }
  static override async load(...[path, heads, options]: Parameters<typeof topknot.MultiHeadAttention.load>) {
    return topknot.MultiHeadAttention.load(path, heads, { device, ...options });
  }
}
