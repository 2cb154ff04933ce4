export { CsrMatrix, type Duplicates } from './csr.js';
export type { CleaningOptions, CleaningReport, DropReason } from './data/cleaning.js';
export { type Id, Ids } from './data/ids.js';
export { type FilterOptions, Interactions } from './data/interactions.js';
export type { ColumnNames, InteractionArrays } from './data/rows.js';
export {
  kFold,
  type RandomSplitOptions,
  type Split,
  type SplitOptions,
  splitLast,
  splitRatio,
  splitTime,
} from './data/splits.js';
export type { FileOptions, IdType, TableColumns } from './data/tables.js';
export type { Normalization, Weighting, WeightingOptions } from './data/weighting.js';
export { cudaProblem, type DeviceInfo, device, devices } from './device.js';
export type { DType, DTypeArrays, NumericArray } from './dtype.js';
export { type ErrorCode, TopknotError } from './errors.js';
export { mapSafetensors, readSafetensors, type Safetensors, writeSafetensors } from './format/safetensors.js';
export type { JobOptions, Progress } from './job.js';
export { type CudaMemoryUse, type MemoryUse, memory, trim } from './memory.js';
export { type Evaluable, type EvaluateOptions, type Evaluation, evaluate } from './metrics/evaluate.js';
export type { Metric, Metrics } from './metrics/metrics.js';
export type { Protocol, Ties } from './metrics/protocols.js';
export { ALS, type ALSOptions } from './models/als.js';
export { BiasedMF, type BiasedMFOptions } from './models/biased-mf.js';
export { BPR, type BPROptions } from './models/bpr.js';
export { EASE, type EASEOptions } from './models/ease.js';
export type { ExplainOptions, Explanation } from './models/explain.js';
export type { SimilarOptions } from './models/factor-model.js';
export type { History } from './models/history.js';
export { ItemKNN, type ItemKNNOptions } from './models/item-knn.js';
export type { NeighbourListOptions } from './models/item-weights-model.js';
export { LogisticMF, type LogisticMFOptions } from './models/logistic-mf.js';
export type { Fittable, Recommendation, RecommendOptions, Visitor } from './models/model.js';
export type { NeighbourOptions } from './models/neighbour-options.js';
export { NMF, type NMFOptions } from './models/nmf.js';
export type { PartialFitOptions } from './models/partial-fit.js';
export type { LoadOptions } from './models/persist.js';
export { Popularity, type PopularityOptions } from './models/popularity.js';
export { PureSVD, type PureSVDOptions } from './models/pure-svd.js';
export { Random, type RandomOptions } from './models/random.js';
export { RatingModel } from './models/rating-model.js';
export type { RowFilter, Scorer, TopKRows } from './models/recommender.js';
export { SVDpp, type SVDppOptions } from './models/svdpp.js';
export { type UserExplanation, UserKNN, type UserKNNOptions } from './models/user-knn.js';
export type { FitOptions } from './models/warm-start.js';
export {
  type EmbeddingInit,
  type EmbeddingOptimizer,
  type EmbeddingPlacement,
  type EmbeddingSnapshot,
  EmbeddingTable,
  type EmbeddingTableOptions,
} from './nn/embedding-table.js';
export {
  MultiHeadAttention,
  type MultiHeadAttentionGradients,
  type MultiHeadAttentionInit,
  type MultiHeadAttentionOptions,
  type MultiHeadAttentionResult,
} from './nn/multi-head-attention.js';
export {
  type AttentionDType,
  type AttentionGradients,
  type AttentionOptions,
  type AttentionTensors,
  attention,
  attentionBackward,
  type Offsets,
} from './ops/attention.js';
export { type CholeskyFactor, cholesky, choleskySolve, solvePositiveDefinite } from './ops/cholesky.js';
export { type EigenPairs, eigh } from './ops/eigh.js';
export {
  add,
  addBackward,
  type BinaryGradients,
  divide,
  divideBackward,
  exp,
  expBackward,
  type GeluOptions,
  gelu,
  geluBackward,
  log,
  logBackward,
  multiply,
  multiplyBackward,
  type Operand,
  relu,
  reluBackward,
  sigmoid,
  sigmoidBackward,
  silu,
  siluBackward,
  sqrt,
  sqrtBackward,
  subtract,
  subtractBackward,
  tanh,
  tanhBackward,
} from './ops/elementwise.js';
export {
  type EmbeddingBackwardOptions,
  embeddingBagBackward,
  gatherBackward,
  quantizeRows,
  type RowGradients,
} from './ops/embedding-backward.js';
export { type BagMode, type EmbeddingBagOptions, embeddingBag, embeddingBagSync } from './ops/embedding-bag.js';
export {
  type EmbeddingRows,
  gather,
  gatherSync,
  type LookupOptions,
  type QuantizedRows,
  type RowIds,
} from './ops/gather.js';
export type { ItemFilter } from './ops/item-filter.js';
export { type LayerNormGradients, type LayerNormOptions, layerNorm, layerNormBackward } from './ops/layer-norm.js';
export type { LinalgOptions, LinearSolution, OverwriteOptions, Real, Status } from './ops/linalg.js';
export { luSolve } from './ops/lu.js';
export {
  type Activation,
  type MatmulGradients,
  type MatmulOptions,
  type MatrixDType,
  matmul,
  matmulBackward,
} from './ops/matmul.js';
export { type QrFactors, qr } from './ops/qr.js';
export { max, maxBackward, mean, meanBackward, type ReduceOptions, sum, sumBackward } from './ops/reduce.js';
export { logSoftmax, logSoftmaxBackward, softmax, softmaxBackward } from './ops/softmax.js';
export { type SingularTriples, svd } from './ops/svd.js';
export {
  type ItemVectors,
  type TopKOptions,
  type TopKTensors,
  topK,
  topKSync,
  type VectorMetric,
} from './ops/top-k.js';
export { type SvdOptions, type TruncatedSvd, truncatedSvd } from './ops/truncated-svd.js';
export { isa, isas, setThreads, threads, useIsa } from './runtime.js';
export {
  FlatIndex,
  type FlatIndexOptions,
  type FlatIndexStats,
  type FlatSearchOptions,
  type SearchOptions,
} from './search/flat-index.js';
export { HnswIndex } from './search/hnsw-index.js';
export type {
  HnswBuildOptions,
  HnswIndexOptions,
  HnswIndexStats,
  HnswSearchOptions,
} from './search/hnsw-options.js';
export type { PlacementOptions } from './search/placement.js';
export type { IndexMetric, VectorStorage, Vectors } from './search/storage.js';
export type { SearchResult, Vector } from './search/vectors.js';
export { full, type NestedArray, scope, Tensor, type TensorOptions, tensor } from './tensor.js';
