import { deviceName, finite, integer, knownOptions } from '../check.js';
import { CsrMatrix } from '../csr.js';
import { expected } from '../errors.js';
import { type JobOptions, runJob } from '../job.js';
import { native } from '../native.js';
import type { Handle } from '../native-ops.js';
import { Tensor } from '../tensor.js';

/** How a truncated singular value decomposition is sought. */
export interface SvdOptions {
  /** Directions beside the k wanted ones: more of them, fewer products with the matrix. 0 to 1024; 16 unless given. */
  oversampling?: number;
  /**
   * It ends when |AᵀA v - σ² v| is no more than this times σ₁² for all k, or no longer falls; 1e-6 unless given, about
   * what float32 allows.
   */
  tolerance?: number;
  /** It ends after so many cycles all the same; 50 unless given. */
  maxCycles?: number;
  /** Same seed, same bytes, at any thread count; 42 unless given. */
  seed?: number;
  /** Where products are computed: 'cpu' unless given; 'cuda', 'cuda:1', ... or 'auto', see `device()`. Results are on the CPU. */
  device?: string;
  /**
   * Bytes of the GPU's memory that products may take: what is free there unless given, or 0. Entries that do not fit
   * beside the vectors stream through in blocks of rows, with the same results.
   */
  deviceBytes?: number;
}

/** matrix ≈ u · diag(s) · vᵀ, the best such approximation of rank k. */
export interface TruncatedSvd {
  /** Left singular vectors, float32 [rows, k]. */
  u: Tensor<'float32'>;
  /** Singular values, falling, float32 [k]. */
  s: Tensor<'float32'>;
  /** Right singular vectors, float32 [columns, k]; the element of largest magnitude of each is positive. */
  v: Tensor<'float32'>;
  /** The largest |AᵀA v - σ² v| / σ₁² of the k when last measured: above `tolerance`, rounding or `maxCycles` ended it. */
  residual: number;
}

/** @internal */
export const svdOptions = ['oversampling', 'tolerance', 'maxCycles', 'seed', 'device', 'deviceBytes'] as const;

/** @internal */
export function checkSvdOptions(options: SvdOptions): Required<SvdOptions> {
  return {
    oversampling: integer('oversampling', options.oversampling ?? 16, 0, 1024),
    tolerance: finite('tolerance', options.tolerance ?? 1e-6, 0),
    maxCycles: integer('maxCycles', options.maxCycles ?? 50, 1),
    seed: integer('seed', options.seed ?? 42, 0),
    device: deviceName(options.device ?? 'cpu'),
    deviceBytes: integer('deviceBytes', options.deviceBytes ?? 0, 0),
  };
}

/** @internal */
export async function decompose(
  matrix: CsrMatrix,
  k: number,
  start: Handle | undefined,
  options: Required<SvdOptions>,
  job: JobOptions,
): Promise<TruncatedSvd> {
  const { u, s, v, residual } = await runJob('long', job, (control) =>
    native.truncatedSvd(control, matrix.handles, start, { k, ...options }),
  );
  return { u: new Tensor(u), s: new Tensor(s), v: new Tensor(v), residual };
}

/**
 * The k largest singular values of a sparse matrix and their vectors, by restarted randomized block Krylov iteration
 * (Halko, Martinsson, Tropp 2011; Musco, Musco 2015). Where the rank is below k, the values beyond it are 0 and their
 * vectors zero; values below 1e-5 of the largest count as such.
 *
 * @example const { u, s, v } = await truncatedSvd(matrix, 64);
 * @throws ERR_RANGE for k below 1 or above the matrix's smaller side; ERR_ARGUMENT
 */
export async function truncatedSvd(
  matrix: CsrMatrix,
  k: number,
  options: SvdOptions & JobOptions = {},
): Promise<TruncatedSvd> {
  if (!(matrix instanceof CsrMatrix)) expected('matrix', 'a CsrMatrix', matrix);
  knownOptions(options, [...svdOptions, 'signal', 'onProgress']);
  return decompose(matrix, integer('k', k, 1, Math.min(...matrix.shape)), undefined, checkSvdOptions(options), options);
}
