import { setImmediate as turn } from 'node:timers/promises';

const sliceMs = 2;
const step = 1024;

/**
 * Lets the event loop turn every two milliseconds of a long loop over JavaScript values, which cannot leave the
 * JavaScript thread: `if (slices.due()) await slices.next()`.
 * @internal
 */
export class Slices {
  #end = performance.now() + sliceMs;
  #calls = 0;

  constructor(readonly signal?: AbortSignal | undefined) {}

  /** Whether the loop has had its two milliseconds. */
  over(): boolean {
    return performance.now() > this.#end;
  }

  /** The same for the body of a fast loop: looks at the clock at every 64th call only. */
  due(): boolean {
    return (++this.#calls & 63) === 0 && this.over();
  }

  /** Lets the event loop turn. Rejects with the signal's reason once aborted. */
  async next(): Promise<void> {
    await turn();
    this.signal?.throwIfAborted();
    this.#end = performance.now() + sliceMs;
  }
}

/** Calls `body(begin, end)` for short runs that cover [0, count), in slices of two milliseconds. @internal */
export async function inSlices(
  count: number,
  body: (begin: number, end: number) => void,
  signal?: AbortSignal | undefined,
): Promise<void> {
  const slices = new Slices(signal);
  for (let begin = 0; begin < count; begin += step) {
    body(begin, Math.min(begin + step, count));
    if (slices.over()) await slices.next();
  }
}
