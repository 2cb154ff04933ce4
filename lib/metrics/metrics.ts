/**
 * What `evaluate` can compute. In the formulas a user has T test items and the list of the k best recommended items;
 * h(r) is 1 when the item at rank r (from 1) is a test item, else 0; H = Σ h(r) over r = 1..k. Metrics of a user are
 * averaged over the users who have test items.
 *
 * A list may be shorter than k when filters leave fewer items: the missing ranks are misses.
 */
export interface Metrics {
  /** H / k. Manning, Raghavan, Schütze, Introduction to Information Retrieval, 2008, §8.4. */
  precision: number;
  /** H / T. Same source. (Some toolkits divide by min(k, T): a larger number.) */
  recall: number;
  /** Harmonic mean of precision and recall, for each user before averaging: 2H / (k + T). Same source, §8.3. */
  f1: number;
  /** 1 when H > 0, else 0. Deshpande, Karypis, Item-based top-N recommendation algorithms, TOIS 22(1), 2004. */
  hitRate: number;
  /**
   * DCG / IDCG with DCG = Σ g(r) / log2(r + 1): g is 1 for a test item (or as the option `gains` says); IDCG is that
   * of the best order of the test items, over min(k, T) ranks. Järvelin, Kekäläinen, Cumulated gain-based evaluation
   * of IR techniques, TOIS 20(4), 2002.
   */
  ndcg: number;
  /** Mean average precision: Σ h(r) · (hits up to r) / r, divided by min(k, T). Manning et al., §8.4. */
  map: number;
  /** Mean reciprocal rank: 1 / the rank of the first hit, 0 without one. Voorhees, The TREC-8 QA track report, 1999. */
  mrr: number;
  /**
   * Share of pairs (test item, other candidate) in which the test item scores higher; a tie is worth half. Candidates
   * are all items outside train, or those of the protocol. Has no k. Users without such a pair do not count.
   * Rendle et al., BPR, UAI 2009, §5.3.
   */
  auc: number;
  /**
   * Root mean squared error of the scores against the values of `test`, over all its entries. Has no k.
   * Herlocker et al., Evaluating collaborative filtering recommender systems, TOIS 22(1), 2004.
   */
  rmse: number;
  /** Mean absolute error, likewise. */
  mae: number;
  /** Share of the items that are in at least one list. Ge et al., Beyond accuracy, RecSys 2010. */
  coverage: number;
  /**
   * Gini index of how often the n items are in a list: Σ (2i - n - 1) c_i / (n Σ c_i), c rising. 0 when all are
   * recommended as often, near 1 when few get everything. Fleder, Hosanagar, Management Science 55(5), 2009.
   */
  gini: number;
  /**
   * Mean self-information of the recommended items in bits: -log2(users of train who have the item / users of train).
   * An item that nobody has counts as one that a single user has. Users with an empty list do not count. Zhou et al.,
   * Solving the apparent diversity-accuracy dilemma of recommender systems, PNAS 107(10), 2010.
   */
  novelty: number;
  /**
   * Intra-list diversity: 1 - the mean cosine over pairs of recommended items, by the option `itemVectors`; an item
   * whose vector is zero has cosine 0 with all. Users with fewer than two items in the list do not count. Ziegler et
   * al., Improving recommendation lists through topic diversification, WWW 2005; Castells et al., Novelty and
   * diversity in recommender systems, Recommender Systems Handbook, 2015.
   */
  diversity: number;
}

/** The name of a metric. */
export type Metric = keyof Metrics;

/** @internal Averages of a value for each user's list. */
export const listMetrics = [
  'precision',
  'recall',
  'f1',
  'hitRate',
  'ndcg',
  'map',
  'mrr',
  'novelty',
  'diversity',
] as const satisfies readonly Metric[];

/** @internal Values of all lists together. */
export const catalogueMetrics = ['coverage', 'gini'] as const satisfies readonly Metric[];

/** @internal Values without a list length. */
export const wholeMetrics = ['auc', 'rmse', 'mae'] as const satisfies readonly Metric[];
