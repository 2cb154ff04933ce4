import { native } from './native.js';

/** Native memory of the whole process, all threads and workers together. */
export interface MemoryUse {
  hostBytes: number;
  hostBuffers: number;
  /** Of tensors on GPUs. */
  cudaBytes: number;
  cudaBuffers: number;
  /** What this process has of each GPU that it uses. */
  cuda: readonly CudaMemoryUse[];
}

/** Memory of one GPU, in bytes. */
export interface CudaMemoryUse {
  /** 'cuda:0', ... */
  device: string;
  /** Held by tensors and by work in flight. */
  usedBytes: number;
  /** Held by the allocator for the next tensors: `trim()` gives it back. */
  keptBytes: number;
}

/** What tensors, models and indexes hold right now outside the JavaScript heap, in bytes and buffers. */
export function memory(): MemoryUse {
  return native.memoryUse();
}

/**
 * Gives the GPU memory that the allocator keeps for the next tensors back to the system: for a process that has done its
 * work on a GPU and shares it with others. Waits for the work in flight there.
 */
export function trim(): void {
  native.trim();
}
