import { native } from './native.js';

/**
 * Threads that one computation may use, for the whole process. Starts at TOPKNOT_THREADS, or at the cores that this
 * process may use. Results do not depend on it.
 */
export function threads(): number {
  return native.threads();
}

/** @throws ERR_RANGE unless `count` is 1 to 256. */
export function setThreads(count: number): void {
  native.setThreads(count);
}

/** The instruction set in use: 'baseline', 'avx2', 'avx512' or 'neon'. TOPKNOT_ISA forces one. */
export function isa(): string {
  return native.isa();
}

/** The instruction sets that this machine can run, best first. */
export function isas(): readonly string[] {
  return native.isas();
}

/** Switches the instruction set for the whole process: for tests and benchmarks. @throws ERR_ARGUMENT */
export function useIsa(name: string): void {
  native.useIsa(name);
}
