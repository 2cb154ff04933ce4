// Fits a model by name.
import {
  ALS,
  BiasedMF,
  BPR,
  EASE,
  ItemKNN,
  LogisticMF,
  NMF,
  Popularity,
  PureSVD,
  Random,
  SVDpp,
  UserKNN,
} from '../../dist/index.js';
import { weighByRarity } from './matrices.mjs';

const plain = {
  popularity: Popularity,
  random: Random,
  'item-knn': ItemKNN,
  'user-knn': UserKNN,
  ease: EASE,
  'pure-svd': PureSVD,
  nmf: NMF,
  bpr: BPR,
  'logistic-mf': LogisticMF,
  'biased-mf': BiasedMF,
  svdpp: SVDpp,
};

/** Short; 'plain' is ALS on unweighted interactions. */
export const label = ({ model, options }) => {
  if (model === 'als') return `als ${options.factors}${options.itemExponent ? '' : ' plain'}`;
  if (model === 'bpr') return `bpr ${options.negativeSampling ?? 'uniform'}`;
  if (model === 'biased-mf') return options.factors === 0 ? 'baseline' : `biased-mf ${options.solver ?? 'sgd'}`;
  return options.objective ? `${model} ${options.objective}` : model;
};

/** A model that is not ALS, not fitted. */
export const make = (model, options) => new plain[model](options);

/** `{ fitted, seconds }`: the fitted model and how long the fit took. */
export async function fit({ model, options }, train) {
  if (model !== 'als') return timed(async () => make(model, options).fit(train));
  const { itemExponent = 0, ...own } = options;
  const weighed = itemExponent ? await weighByRarity(train, itemExponent) : train;
  return timed(async () => new ALS(own).fit(weighed));
}

async function timed(work) {
  const start = performance.now();
  const fitted = await work();
  return { fitted, seconds: (performance.now() - start) / 1000 };
}
