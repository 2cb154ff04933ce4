// Times several contestants in turns, so that whatever else the machine does falls on all of them alike.
import { LoopDelay } from './loop-delay.mjs';
import { Others } from './others.mjs';
import { quantile } from './stats.mjs';

/** A turn lasts at least this long: short calls are repeated within it. */
const turnMs = 25;
const callsPerTurn = 200;
/** Calls shorter than this are preceded by an untimed one in each turn: another contestant has emptied the caches. */
const warmBelowMs = 20;

/**
 * Runs every contestant in rounds, each taking a turn, until the first has been timed for `budgetMs` and at least
 * `minRounds` rounds are done. A contestant is `{ name, run, watchLoop?, settleMs? }`; `run` is one call to time, or returns
 * `{ ms: number[] }` when it has timed itself. Others take two turns, and more until they have used twice the budget.
 * `settleMs` is how long a contestant's threads still spin when its turn is over; nobody is timed meanwhile.
 *
 * @returns a Map from name to `{ samples, loopDelayMs, otherCores }`: milliseconds of each call; the p99 of the
 * event-loop delay meanwhile, null when unwatched or too short to sample; the cores that other processes used meanwhile.
 */
export async function interleave(contestants, { budgetMs, minRounds = 3, maxRounds = 400 }) {
  const [first] = contestants;
  const states = new Map();
  for (const c of contestants) {
    states.set(c.name, {
      samples: [],
      usedMs: 0,
      turns: 0,
      delay: new LoopDelay(),
      others: new Others(),
      typicalMs: await once(c),
    });
  }
  for (let round = 0; round < maxRounds; ++round) {
    if (round >= minRounds && states.get(first.name).usedMs >= budgetMs) break;
    for (const c of contestants) {
      const state = states.get(c.name);
      if (c !== first && state.turns > 1 && state.usedMs >= 2 * budgetMs) continue;
      await turn(c, state);
    }
  }
  return new Map(
    contestants.map(({ name }) => {
      const { samples, delay, others } = states.get(name);
      return [name, { samples, loopDelayMs: quantile(delay.samples, 0.99), otherCores: others.cores }];
    }),
  );
}

async function once(contestant) {
  const start = performance.now();
  await contestant.run();
  return performance.now() - start;
}

async function turn(contestant, state) {
  if (state.typicalMs < warmBelowMs) await contestant.run();
  if (contestant.watchLoop) state.delay.start();
  state.others.start();
  const begin = performance.now();
  const fresh = [];
  do {
    const start = performance.now();
    const pending = contestant.run();
    const own = pending instanceof Promise ? await pending : pending;
    const wall = performance.now() - start;
    fresh.push(...(own?.ms ?? [wall]));
  } while (performance.now() - begin < turnMs && fresh.length < callsPerTurn);
  state.usedMs += performance.now() - begin;
  state.others.stop();
  state.delay.stop();
  state.samples.push(...fresh);
  state.typicalMs = quantile(fresh, 0.5);
  state.turns++;
  if (contestant.settleMs) await new Promise((resolve) => setTimeout(resolve, contestant.settleMs));
}
