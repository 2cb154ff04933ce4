import { native } from './native.js';

/** Native memory of the whole process, all threads and workers together. */
export interface MemoryUse {
  hostBytes: number;
  hostBuffers: number;
  cudaBytes: number;
  cudaBuffers: number;
}

/** What tensors, models and indexes hold right now outside the JavaScript heap, in bytes and buffers. */
export function memory(): MemoryUse {
  return native.memoryUse();
}
