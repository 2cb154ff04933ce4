import { setImmediate } from 'node:timers/promises';

const sliceMs = 2;

/**
 * Keeps a long loop on the JavaScript thread from blocking the event loop: `if (slices.due()) await slices.next()`.
 * @internal
 */
export class Slices {
  #end = performance.now() + sliceMs;
  #calls = 0;

  constructor(readonly signal?: AbortSignal) {}

  /** True when the loop has had its two milliseconds. Looks at the clock at every 64th call only. */
  due(): boolean {
    return (++this.#calls & 63) === 0 && performance.now() > this.#end;
  }

  /** Lets the event loop turn. Rejects with the signal's reason once aborted. */
  async next(): Promise<void> {
    await setImmediate();
    this.signal?.throwIfAborted();
    this.#end = performance.now() + sliceMs;
  }
}
