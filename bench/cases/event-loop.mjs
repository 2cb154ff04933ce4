// What long work does to the event loop: loop_delay_p99_ms is the point of these rows. The first is a timer alone, which
// shows what the machine itself does to one.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { ALS, evaluate, Interactions } from '../../dist/index.js';
import { loadMatrix } from '../data/csr.mjs';
import { heldOut } from '../data/split.mjs';

export const name = 'event-loop';

const idle = { label: 'idle', setup: () => ({}), run: () => sleep(500) };

const fit = (shape, factors) => ({
  label: `fit ${shape} cg f=${factors}, 2 iterations`,
  setup: async (context) => ({
    interactions: await named(shape, context),
    options: { factors, solver: 'cg', iterations: 2 },
  }),
  async run({ interactions, options }) {
    (await new ALS(options).fit(interactions)).dispose();
  },
});

const load = (shape, factors) => ({
  label: `load ${shape} f=${factors}, string ids`,
  async setup(context) {
    const folder = mkdtempSync(join(tmpdir(), 'topknot-bench-'));
    const path = join(folder, 'model.safetensors');
    const model = await new ALS({ factors, solver: 'cg', iterations: 1 }).fit(await named(shape, context));
    await model.save(path);
    return { folder, path, saved: Buffer.from((await model.userFactors.data()).buffer) };
  },
  async run({ path }) {
    (await ALS.load(path)).dispose();
  },
  async verify({ path, saved }) {
    const loaded = Buffer.from((await (await ALS.load(path)).userFactors.data()).buffer);
    if (!loaded.equals(saved)) throw new Error('event-loop: the loaded model has other factors than the saved one');
  },
  teardown: ({ folder }) => rmSync(folder, { recursive: true }),
});

const evaluation = (shape, factors) => ({
  label: `evaluation ${shape} f=${factors}`,
  async setup(context) {
    const data = await heldOut(shape, context.data);
    return { data, model: await new ALS({ factors, solver: 'cg', iterations: 1 }).fit(data.train) };
  },
  run: ({ model, data }) => evaluate(model, data, { metrics: ['recall', 'ndcg', 'coverage'], k: [10, 20] }),
});

export const sizes = [
  idle,
  fit('gowalla', 64),
  load('gowalla', 64),
  evaluation('gowalla', 64),
  ...[fit('tiny', 16), load('tiny', 16), evaluation('tiny', 16)].map((size) => ({ ...size, quick: true })),
];

/** The entries of a made matrix under string ids. */
async function named(shape, context) {
  const { users, indptr, indices } = loadMatrix(shape, context.data);
  const userNames = [];
  for (let user = 0; user < users; ++user)
    for (let at = indptr[user]; at < indptr[user + 1]; ++at) userNames.push(`user-${user}`);
  return Interactions.fromArrays({ users: userNames, items: Array.from(indices, (item) => `item-${item}`) });
}

export const setup = (size, context) => size.setup(context);
export const run = (state, size) => size.run(state);
export const verify = (state, size) => size.verify?.(state);
export const teardown = (state, size) => size.teardown?.(state);
