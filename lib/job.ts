import { isObject, knownOptions } from './check.js';
import { expected, TopknotError } from './errors.js';
import { native } from './native.js';
import type { Control } from './native-ops.js';

/** How far a job has come. */
export interface Progress {
  /** Steps finished, in the job's own unit (sweeps of a fit, users of an evaluation, bytes of a file). */
  done: number;
  total: number;
  /** The objective, when the job was asked to compute it. */
  loss?: number;
}

/** Options of everything that runs as a job. */
export interface JobOptions {
  /** Stops the job; the promise rejects with `signal.reason`. Nothing that existed before is changed. */
  signal?: AbortSignal | undefined;
  /** Hears the latest state, at most once per turn of the event loop. What it throws stops the job and rejects it. */
  onProgress?: ((progress: Progress) => void) | undefined;
}

/** Throws ERR_ARGUMENT for options of a job that are of the wrong type. @internal */
export function checkJob(options: JobOptions): void {
  isObject('options', options);
  const { signal, onProgress } = options;
  if (signal && typeof signal.throwIfAborted !== 'function') expected('signal', 'an AbortSignal', signal);
  if (onProgress && typeof onProgress !== 'function') expected('onProgress', 'a function', onProgress);
}

/** The check of what has no options but those of a job: a name that is none of them is refused too. @internal */
export function onlyJob(options: JobOptions): void {
  knownOptions(options, ['signal', 'onProgress']);
  checkJob(options);
}

/**
 * Runs one job of the addon under an AbortSignal and a progress listener, and gives its error the caller's stack.
 * @internal
 */
export async function runJob<T>(
  priority: 'long' | 'query',
  options: JobOptions,
  start: (control: Control) => Promise<T>,
): Promise<T> {
  checkJob(options);
  const { signal, onProgress } = options;
  signal?.throwIfAborted();
  let thrown: { error: unknown } | undefined;
  const listener = onProgress
    ? (done: number, total: number, loss: number) => {
        if (thrown || signal?.aborted) return;
        try {
          onProgress(Number.isNaN(loss) ? { done, total } : { done, total, loss });
        } catch (error) {
          thrown = { error };
          native.cancel(control);
        }
      }
    : undefined;
  const control = native.control(priority === 'query' ? 1 : 0, listener);
  const abort = () => native.cancel(control);
  signal?.addEventListener('abort', abort, { once: true });
  try {
    const result = await start(control);
    if (thrown) throw thrown.error;
    return result;
  } catch (error) {
    if (thrown) throw thrown.error;
    if (signal?.aborted) throw signal.reason;
    if (error instanceof TopknotError) Error.captureStackTrace(error, runJob);
    throw error;
  } finally {
    signal?.removeEventListener('abort', abort);
    native.closeControl(control);
  }
}
