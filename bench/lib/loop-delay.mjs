// perf_hooks.monitorEventLoopDelay keeps a histogram that can be neither paused without recording the pause as a delay
// nor merged with another, and here peers take turns that would spoil it; so the samples are taken by a timer of ours.

/** Node's timers count in milliseconds: the finest that delay can be sampled. */
const intervalMs = 1;

/** How much later than asked a one-millisecond timer fires, sampled while started. */
export class LoopDelay {
  samples = [];
  #timer;

  start() {
    let last = performance.now();
    this.#timer = setInterval(() => {
      const now = performance.now();
      this.samples.push(Math.max(0, now - last - intervalMs));
      last = now;
    }, intervalMs);
  }

  stop() {
    clearInterval(this.#timer);
  }
}
