// Fits a model by name.
import { ALS, Popularity, Random } from '../../dist/index.js';
import { weighByRarity } from './matrices.mjs';

const plain = { popularity: Popularity, random: Random };

/** Short; 'plain' is ALS on unweighted interactions. */
export const label = ({ model, options }) =>
  model === 'als' ? `als ${options.factors}${options.itemExponent ? '' : ' plain'}` : model;

/** `{ fitted, seconds }`: the fitted model and how long the fit took. */
export async function fit({ model, options }, train) {
  if (model !== 'als') return timed(async () => new plain[model](options).fit(train));
  const { itemExponent = 0, ...own } = options;
  const weighed = itemExponent ? await weighByRarity(train, itemExponent) : train;
  return timed(async () => new ALS(own).fit(weighed));
}

async function timed(work) {
  const start = performance.now();
  const fitted = await work();
  return { fitted, seconds: (performance.now() - start) / 1000 };
}
