import { setImmediate as turn } from 'node:timers/promises';

const sliceMs = 2;
const step = 1024;

/**
 * Calls `body(begin, end)` for short runs that cover [0, count), and lets the event loop turn every two milliseconds:
 * for work over many JavaScript values that cannot leave the JavaScript thread.
 * @internal
 */
export async function inSlices(
  count: number,
  body: (begin: number, end: number) => void,
  signal?: AbortSignal | undefined,
): Promise<void> {
  let until = performance.now() + sliceMs;
  for (let begin = 0; begin < count; begin += step) {
    body(begin, Math.min(begin + step, count));
    if (performance.now() < until) continue;
    await turn();
    signal?.throwIfAborted();
    until = performance.now() + sliceMs;
  }
}
