// Small grids on a tenth of train that is held out. ALS is judged after some of its sweeps.
import { ALS, evaluate } from '../../dist/index.js';
import { holdOut, matrices, weighByRarity } from './matrices.mjs';
import { make } from './models.mjs';

const grids = {
  gowalla: {
    unobservedWeight: [0.01, 0.02, 0.05],
    regularization: [0.0007, 0.002, 0.006],
    itemExponent: [0, 0.2, 0.4],
    iterations: [3, 4, 6],
  },
  'ml-1m': {
    unobservedWeight: [0.05, 0.1, 0.3],
    regularization: [0.002, 0.005, 0.012],
    itemExponent: [0, 0.2, 0.4],
    iterations: [4, 8],
  },
};

const hard = { negativeSampling: 'hard', iterations: 50 };
const logistic = { negatives: 5, iterations: 40, learningRate: 0.3 };
const otherGrids = {
  bpr: {
    gowalla: [8, 16, 32].flatMap((candidates) =>
      [0.01, 0.03].map((regularization) => ({ ...hard, candidates, regularization, learningRate: 0.1 })),
    ),
    'ml-1m': [2, 4, 8].flatMap((candidates) =>
      [0.01, 0.03].map((regularization) => ({ ...hard, candidates, regularization, learningRate: 0.05 })),
    ),
  },
  ease: {
    gowalla: [50, 100, 200].map((regularization) => ({ regularization, neighbours: 1000 })),
    'ml-1m': [100, 300, 1000].map((regularization) => ({ regularization })),
  },
  'logistic-mf': {
    gowalla: [0.6, 2, 6].map((regularization) => ({ ...logistic, regularization })),
    'ml-1m': [0.6, 2, 6].map((regularization) => ({ ...logistic, regularization })),
  },
};

/** The same for another model: a fit for each point of its grid. */
export async function tuneOther(model, experiment, dir, { log }) {
  const { train, test } = await matrices(holdOut((await experiment.load(dir)).train, { seed: 1, judges: 4 }));
  const rows = [];
  for (const options of otherGrids[model][experiment.dataset]) {
    const start = performance.now();
    const fitted = await make(model, options).fit(train);
    const seconds = (performance.now() - start) / 1000;
    const { values } = await evaluate(fitted, { train, test }, { metrics: ['recall', 'ndcg'], k: 20 });
    fitted.dispose();
    const [recall, ndcg] = [values['recall@20'], values['ndcg@20']];
    log(`${JSON.stringify(options)}  recall ${recall.toFixed(5)}  ndcg ${ndcg.toFixed(5)}`);
    rows.push({ mean: (recall + ndcg) / 2, recall, ndcg, options, seconds });
  }
  return rows.sort((a, b) => b.mean - a.mean);
}

/** Rows of the best number of sweeps for each point, best point first. */
export async function tune(experiment, dir, { factors = 64, log }) {
  const parts = holdOut((await experiment.load(dir)).train, { seed: 1, judges: 4 });
  const { train, test } = await matrices(parts);
  const grid = grids[experiment.dataset];
  const rows = [];
  for (const itemExponent of grid.itemExponent) {
    const weighed = await weighByRarity(train, itemExponent);
    for (const unobservedWeight of grid.unobservedWeight) {
      for (const regularization of grid.regularization) {
        const options = { factors, unobservedWeight, regularization, itemExponent };
        const best = await sweepBySweep(options, weighed, grid.iterations, { train, test });
        log(`${JSON.stringify(best.options)}  recall ${best.recall.toFixed(5)}  ndcg ${best.ndcg.toFixed(5)}`);
        rows.push(best);
      }
    }
  }
  return rows.sort((a, b) => b.mean - a.mean);
}

/** One sweep at a time, each going on from the last: the same factors as in one fit. */
async function sweepBySweep({ itemExponent, ...options }, weighed, judgedAfter, data) {
  const start = performance.now();
  const model = new ALS({ ...options, iterations: 1 });
  let best = { mean: -1 };
  for (let iterations = 1; iterations <= judgedAfter.at(-1); ++iterations) {
    await model.fit(weighed, { warmStart: iterations > 1 });
    if (!judgedAfter.includes(iterations)) continue;
    const { values } = await evaluate(model, data, { metrics: ['recall', 'ndcg'], k: 20 });
    const [recall, ndcg] = [values['recall@20'], values['ndcg@20']];
    const mean = (recall + ndcg) / 2;
    if (mean > best.mean) best = { mean, recall, ndcg, options: { ...options, itemExponent, iterations } };
  }
  model.dispose();
  return { ...best, seconds: (performance.now() - start) / 1000 };
}
