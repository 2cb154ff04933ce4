// What other processes take from this machine while topknot runs: a figure taken on a busy machine should say so.
import { readFileSync } from 'node:fs';

/** Processor seconds that everything but this process has used so far; null where the system does not tell. */
function othersSeconds() {
  try {
    const [user, nice, system, , , irq, softirq, steal] = readFileSync('/proc/stat', 'utf8')
      .split('\n', 1)[0]
      .split(/\s+/)
      .slice(1)
      .map(Number);
    const own = process.cpuUsage();
    return (user + nice + system + irq + softirq + steal) / 100 - (own.user + own.system) / 1e6;
  } catch {
    return null;
  }
}

/** Adds up turns: the cores that others used meanwhile. */
export class Others {
  #seconds = 0;
  #wallMs = 0;
  #begin;

  start() {
    this.#begin = { others: othersSeconds(), at: performance.now() };
  }

  stop() {
    if (this.#begin.others === null) return;
    this.#seconds += othersSeconds() - this.#begin.others;
    this.#wallMs += performance.now() - this.#begin.at;
  }

  /** Null when nothing could be measured. */
  get cores() {
    return this.#wallMs > 0 ? Math.max(0, (this.#seconds * 1000) / this.#wallMs) : null;
  }
}
