// The two limits that every case is compared with: reading memory and multiply-adds, measured by the addon on the same
// pool, threads and instruction set as the kernels (native/cpu/kernels/limits.cpp).
import { readFileSync } from 'node:fs';
import { native } from '../../dist/native.js';
import { median } from './stats.mjs';

export class Limits {
  #buffer;
  #read = [];
  #fma = [];

  /** @param bytes memory to read in one pass: well beyond the last-level cache. */
  constructor(bytes) {
    this.#buffer = native.tensorFull('float32', [bytes / 4], 1);
  }

  /** Contestants for interleave(): each measures one pass and keeps the rate. */
  contestants() {
    return [
      {
        name: 'limit: read',
        run: () => this.#sample(this.#read, () => native.measureRead(undefined, this.#buffer, 1)),
      },
      { name: 'limit: fma', run: () => this.#sample(this.#fma, () => native.measureFma(undefined, 1)) },
    ];
  }

  /** Medians since the last call: GB/s read from memory, float32 GFLOP/s. */
  take() {
    const limits = { readGbps: median(this.#read), fmaGflops: median(this.#fma) };
    this.#read = [];
    this.#fma = [];
    return limits;
  }

  async #sample(kept, measure) {
    kept.push(...(await measure()));
  }
}

/** Bytes of the last-level cache; where the system does not tell, what server processors have at least. */
const cacheBytes = (() => {
  try {
    return 1024 * Number.parseInt(readFileSync('/sys/devices/system/cpu/cpu0/cache/index3/size', 'utf8'), 10);
  } catch {
    return 2 ** 25;
  }
})();

/**
 * The least milliseconds that `flops` operations and `bytes` of memory traffic take at the measured limits, or null for
 * neither. Data that fits in the cache may never come from memory, so only its operations count.
 */
export function floorMs({ flops, bytes }, limits) {
  const fromMemory = bytes > cacheBytes ? bytes / limits.readGbps : 0;
  return Math.max((flops ?? 0) / limits.fmaGflops, fromMemory) / 1e6 || null;
}

export const cacheMib = cacheBytes / 2 ** 20;
