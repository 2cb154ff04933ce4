// Hyperparameters of ALS. Those of gowalla and ml1m were chosen by `npm run bench:quality -- --tune`, on a tenth of
// train that was held out, by the mean of Recall@20 and NDCG@20; test had no part in it. Those of the NCF protocol are
// published: Rendle et al., Revisiting the performance of iALS on item recommendation, RecSys 2022.

/** Rare items count for more: every value is users(item)^-itemExponent, scaled to a mean of 1. */
const gowalla = { unobservedWeight: 0.01, regularization: 0.003, iterations: 4, itemExponent: 0.25 };
const ml1m = { unobservedWeight: 0.1, regularization: 0.003, iterations: 8, itemExponent: 0 };
const ncf = { unobservedWeight: 0.3, regularization: 0.007, iterations: 12, itemExponent: 0 };

export const chosen = {
  gowalla: [
    { factors: 64, ...gowalla },
    { factors: 128, ...gowalla },
    { factors: 256, ...gowalla },
  ],
  ml1m: [{ factors: 64, ...ml1m }],
  ncf: [
    { factors: 64, ...ncf },
    { factors: 192, ...ncf },
  ],
  sports: [{ factors: 64, ...gowalla }],
};
