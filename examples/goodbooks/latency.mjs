import { performance } from 'node:perf_hooks';

/** Calls `ask` for `ms` milliseconds or so; its median and 99th percentile in microseconds. */
async function time(name, ask, { ms = 700, batch } = {}) {
  for (let i = 0; i < 20; i++) await ask(i);
  const times = [];
  for (const end = performance.now() + ms; performance.now() < end; ) {
    const start = performance.now();
    const answer = ask(times.length);
    if (answer instanceof Promise) await answer;
    times.push((performance.now() - start) * 1000);
  }
  times.sort((a, b) => a - b);
  const share = (p) => times[Math.min(times.length - 1, Math.floor(p * times.length))];
  return { name, p50: share(0.5), p99: share(0.99), ...(batch && { batch }) };
}

/** How long each kind of question takes on this model. */
export async function measure(model, { liked, seed }) {
  const users = [...model.users];
  const user = (i) => users[(i * 7919) % users.length];
  const hundred = users.slice(0, 100);
  return [
    await time('recommendSync', (i) => model.recommendSync(user(i))),
    await time('recommend', (i) => model.recommend(user(i))),
    await time('recommend, 100 readers', () => model.recommend(hundred), { batch: 100 }),
    await time('recommend, new reader', () => model.recommend({ history: liked })),
    await time('similarItems', () => model.similarItems(seed)),
  ];
}
