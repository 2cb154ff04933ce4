export { CsrMatrix, type Duplicates } from './csr.js';
export type { DType, DTypeArrays, NumericArray } from './dtype.js';
export { type ErrorCode, TopknotError } from './errors.js';
export type { JobOptions, Progress } from './job.js';
export { type MemoryUse, memory } from './memory.js';
export { isa, isas, setThreads, threads, useIsa } from './runtime.js';
export { full, type NestedArray, scope, Tensor, type TensorOptions, tensor } from './tensor.js';
