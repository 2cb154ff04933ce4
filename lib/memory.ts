import { native } from './native.js';

/** Native memory of the whole process, all threads and workers together. */
export interface MemoryUse {
  hostBytes: number;
  hostBuffers: number;
  /** Of freed buffers, kept for the next ones, 64 MiB at most: `trim()` gives it back. */
  hostKeptBytes: number;
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
 * Gives memory that is kept for the next tensors back to the system: up to 64 MiB of the host's, and all that the
 * allocator has of the GPUs, for a process that shares them with others. Waits for the work in flight on GPUs.
 */
export function trim(): void {
  native.trim();
}
