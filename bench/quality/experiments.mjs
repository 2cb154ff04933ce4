// Which models are measured on which data, by which protocol, against which published figures.
import { join } from 'node:path';
import { chosen, gradient, spectral } from './chosen.mjs';
import { adjacency, columns, fifthHeldOut, leaveLastOut, negatives, ratingFolds } from './read.mjs';

const popularity = { model: 'popularity', options: {} };
const random = { model: 'random', options: {} };
const als = (options) => ({ model: 'als', options });
const full20 = { k: 20, metrics: ['recall', 'ndcg', 'coverage', 'novelty'] };
const full10 = { k: 10, metrics: ['hitRate', 'ndcg', 'mrr', 'coverage'] };

/** The models as they are without options, on data that may be shown. */
const defaults = [
  ['goodbooks-sample', 'ratings.csv.gz', ',', [1, 5]],
  ['movietweetings', 'ratings.dat.gz', '::', [0, 10]],
].flatMap(([dataset, file, separator, clip]) => [
  {
    dataset,
    protocol: 'full, a fifth held out, default options',
    load: (dir) => fifthHeldOut(join(dir, dataset, file), separator, { values: false }),
    evaluation: { k: 20, metrics: ['recall', 'ndcg'] },
    models: [popularity, als({ factors: 64 }), { model: 'bpr', options: {} }, { model: 'logistic-mf', options: {} }],
    goals: {},
  },
  {
    dataset,
    protocol: 'ratings, a fifth held out, default options',
    load: (dir) => fifthHeldOut(join(dir, dataset, file), separator, { values: true }),
    evaluation: { metrics: ['rmse', 'mae'], clip },
    models: [{ factors: 0 }, {}, { solver: 'als' }].map((options) => ({ model: 'biased-mf', options })),
    goals: {},
  },
]);

/**
 * Each: what it is, `load(dir)` (row numbers of train and test and, where the protocol gives them, candidates; or an array
 * of folds, over which values are averaged),
 * `evaluation` (options of evaluate), `models`, and `goals` (`model: { metric: value }`), figures that are published or
 * demanded. Popularity and PureSVD must be within `tolerance` (half a last digit unless given), the others at least that good (errors at most that large).
 */
export const experiments = [
  {
    dataset: 'gowalla',
    protocol: 'full, LightGCN split',
    load: (dir) => split(join(dir, 'gowalla')),
    evaluation: full20,
    tunable: true,
    models: [popularity, random, ...chosen.gowalla.map(als), ...spectral.gowalla, ...gradient.gowalla],
    goals: {
      popularity: { 'recall@20': 0.04163, 'ndcg@20': 0.03169 },
      'als 64': { 'recall@20': 0.153, 'ndcg@20': 0.13 },
      'pure-svd': { 'recall@20': 0.09114, 'ndcg@20': 0.0772 },
      'item-knn': { 'recall@20': 0.155, 'ndcg@20': 0.12 },
      ease: { 'recall@20': 0.174, 'ndcg@20': 0.145 },
      'bpr hard': { 'recall@20': 0.149, 'ndcg@20': 0.123 },
    },
  },
  {
    dataset: 'ml-1m',
    protocol: 'full, LightGCN split',
    load: (dir) => split(join(dir, 'ml-1m', 'lightgcn-split')),
    evaluation: full20,
    tunable: true,
    models: [popularity, random, ...chosen.ml1m.map(als), ...spectral.ml1m, ...gradient.ml1m],
    goals: {
      popularity: { 'recall@20': 0.11605, 'ndcg@20': 0.11757 },
      'pure-svd': { 'recall@20': 0.24805, 'ndcg@20': 0.23967 },
      'bpr hard': { 'recall@20': 0.2532, 'ndcg@20': 0.244 },
    },
    tolerance: 4e-5, // the order among items of one popularity moves both by as much
  },
  {
    dataset: 'ml-1m',
    protocol: '99 given negatives, NCF',
    load(dir) {
      const ncf = (file) => join(dir, 'ml-1m', 'ncf', file);
      return {
        train: columns(ncf('ml-1m.train.tsv.gz')),
        test: columns(ncf('ml-1m.test.rating.gz')),
        candidates: negatives(ncf('ml-1m.test.negative.gz')),
      };
    },
    evaluation: { k: 10, metrics: ['hitRate', 'ndcg'], ties: 'against' },
    models: [popularity, ...chosen.ncf.map(als)],
    goals: {
      popularity: { 'hitRate@10': 0.4531, 'ndcg@10': 0.2542 },
      'als 64': { 'hitRate@10': 0.7235 },
      'als 192 plain': { 'hitRate@10': 0.729 },
    },
    tolerance: 2e-4, // the train file was rebuilt; which of some rare items is which could not be told
  },
  {
    dataset: 'ml-1m',
    protocol: 'full, last item out',
    load: (dir) => leaveLastOut(join(dir, 'ml-1m', 'sasrec', 'ml-1m.txt.gz')),
    evaluation: full10,
    models: [popularity, ...chosen.ml1m.map(als)],
    goals: {},
  },
  {
    dataset: 'amazon-sports',
    protocol: 'full, last item out',
    load: (dir) => leaveLastOut(join(dir, 'amazon-sports', 'sequences.txt.gz')),
    evaluation: full10,
    models: [popularity, ...chosen.sports.map(als)],
    goals: {},
  },
  {
    dataset: 'ml-100k',
    protocol: 'ratings, mean of the folds u1 to u5',
    load: (dir) => ratingFolds(join(dir, 'ml-100k', 'ratings.tsv.gz')),
    evaluation: { metrics: ['rmse', 'mae'], clip: [1, 5] },
    models: [
      ...spectral.ml100k,
      ...chosen.ratings.biasedMf.map((options) => ({ model: 'biased-mf', options })),
      ...chosen.ratings.svdpp.map((options) => ({ model: 'svdpp', options })),
    ],
    goals: {
      nmf: { rmse: 0.97 },
      baseline: { rmse: 0.944, mae: 0.748 },
      'biased-mf sgd': { rmse: 0.94, mae: 0.737 },
      svdpp: { rmse: 0.919, mae: 0.721 },
    },
  },
  ...defaults,
];

function split(folder) {
  return { train: adjacency(join(folder, 'train.txt.gz')), test: adjacency(join(folder, 'test.txt.gz')) };
}
