// Made by scripts/native-types.mjs from native/ops/ops.def. Do not edit.
import type { DType, NumericArray as TypedArray } from './dtype.js';

/** A tensor in native memory. */
export type Handle = { readonly __tensor: unique symbol };
/** A running job: cancel it, hear of its progress. */
export type Control = { readonly __control: unique symbol };

export interface NativeOps {
  setErrorClass(constructor: new (code: string, message: string) => Error): void;
  control(priority: number, onProgress?: (done: number, total: number, loss: number) => void): Control;
  cancel(control: Control): void;
  dispose(tensor: Handle): boolean;
  read(tensor: Handle): Promise<TypedArray>;
  readSync(tensor: Handle): TypedArray;
  tensorInfo(tensor: Handle | TypedArray): { shape: readonly number[]; dtype: DType; device: string; };
  tensorFrom(data: Handle | TypedArray, dtype: DType, shape: readonly number[]): Handle;
  tensorFull(dtype: DType, shape: readonly number[], value: number): Handle;
  cast(tensor: Handle | TypedArray, dtype: DType): Handle;
  memoryUse(): { hostBytes: number; hostBuffers: number; cudaBytes: number; cudaBuffers: number; };
  threads(): number;
  setThreads(threads: number): void;
  isas(): readonly string[];
  isa(): string;
  useIsa(isa: string): void;
  csrFromCoo(control: Control | undefined, rows: Handle | TypedArray, cols: Handle | TypedArray, values: Handle | TypedArray | undefined, rowCount: number, colCount: number, duplicates: 'sum' | 'refuse' | 'first' | 'last' | 'max'): Promise<{ indptr: Handle; indices: Handle; values: Handle; cols: number; }>;
  csrFromCooSync(rows: Handle | TypedArray, cols: Handle | TypedArray, values: Handle | TypedArray | undefined, rowCount: number, colCount: number, duplicates: 'sum' | 'refuse' | 'first' | 'last' | 'max'): { indptr: Handle; indices: Handle; values: Handle; cols: number; };
  csrTranspose(control: Control | undefined, matrix: { indptr: Handle; indices: Handle; values: Handle; cols: number; }): Promise<{ indptr: Handle; indices: Handle; values: Handle; cols: number; }>;
  csrTransposeSync(matrix: { indptr: Handle; indices: Handle; values: Handle; cols: number; }): { indptr: Handle; indices: Handle; values: Handle; cols: number; };
  csrValidate(control: Control | undefined, matrix: { indptr: Handle; indices: Handle; values: Handle; cols: number; }): Promise<void>;
  csrValidateSync(matrix: { indptr: Handle; indices: Handle; values: Handle; cols: number; }): void;
  concat(control: Control | undefined, parts: readonly (Handle)[]): Promise<Handle>;
  concatSync(parts: readonly (Handle)[]): Handle;
  interactionsClean(control: Control | undefined, users: Handle | TypedArray, items: Handle | TypedArray, values: Handle | TypedArray | undefined, times: Handle | TypedArray | undefined, userCount: number, itemCount: number, options: { minValue: number; maxValue: number; threshold?: number | undefined; duplicates: 'sum' | 'refuse' | 'first' | 'last' | 'max'; refuse: boolean; minUserCount: number; minItemCount: number; keepUsers: boolean; keepItems: boolean; }): Promise<{ data: { users: Handle; items: Handle; values: Handle; times?: Handle | undefined; }; keptUsers?: Handle | undefined; keptItems?: Handle | undefined; counts: { missingUser: number; missingItem: number; missingValue: number; missingTime: number; unknownUser: number; unknownItem: number; notFinite: number; outOfRange: number; duplicate: number; belowThreshold: number; belowMinCount: number; }; }>;
  interactionsCleanSync(users: Handle | TypedArray, items: Handle | TypedArray, values: Handle | TypedArray | undefined, times: Handle | TypedArray | undefined, userCount: number, itemCount: number, options: { minValue: number; maxValue: number; threshold?: number | undefined; duplicates: 'sum' | 'refuse' | 'first' | 'last' | 'max'; refuse: boolean; minUserCount: number; minItemCount: number; keepUsers: boolean; keepItems: boolean; }): { data: { users: Handle; items: Handle; values: Handle; times?: Handle | undefined; }; keptUsers?: Handle | undefined; keptItems?: Handle | undefined; counts: { missingUser: number; missingItem: number; missingValue: number; missingTime: number; unknownUser: number; unknownItem: number; notFinite: number; outOfRange: number; duplicate: number; belowThreshold: number; belowMinCount: number; }; };
  safetensorsHeader(control: Control | undefined, path: string): Promise<{ json: TypedArray; dataStart: number; bytes: number; stamp: string; }>;
  safetensorsHeaderSync(path: string): { json: TypedArray; dataStart: number; bytes: number; stamp: string; };
  safetensorsRead(control: Control | undefined, path: string, stamp: string, parts: readonly ({ dtype: DType; shape: readonly number[]; offset: number; })[]): Promise<readonly (Handle)[]>;
  safetensorsReadSync(path: string, stamp: string, parts: readonly ({ dtype: DType; shape: readonly number[]; offset: number; })[]): readonly (Handle)[];
  safetensorsWrite(control: Control | undefined, path: string, header: Handle | TypedArray, tensors: readonly (Handle)[]): Promise<void>;
  safetensorsWriteSync(path: string, header: Handle | TypedArray, tensors: readonly (Handle)[]): void;
  csrColumnSums(control: Control | undefined, matrix: { indptr: Handle; indices: Handle; values: Handle; cols: number; }, weighted: boolean): Promise<Handle>;
  csrColumnSumsSync(matrix: { indptr: Handle; indices: Handle; values: Handle; cols: number; }, weighted: boolean): Handle;
  csrTakeRows(control: Control | undefined, matrix: { indptr: Handle; indices: Handle; values: Handle; cols: number; }, rows: Handle | TypedArray): Promise<{ indptr: Handle; indices: Handle; values: Handle; cols: number; }>;
  csrTakeRowsSync(matrix: { indptr: Handle; indices: Handle; values: Handle; cols: number; }, rows: Handle | TypedArray): { indptr: Handle; indices: Handle; values: Handle; cols: number; };
  csrUpdate(control: Control | undefined, matrix: { indptr: Handle; indices: Handle; values: Handle; cols: number; }, update: { indptr: Handle; indices: Handle; values: Handle; cols: number; }, rowOf: Handle | TypedArray, colOf: Handle | TypedArray, rowCount: number, colCount: number, duplicates: 'sum' | 'refuse' | 'first' | 'last' | 'max'): Promise<{ indptr: Handle; indices: Handle; values: Handle; cols: number; }>;
  csrUpdateSync(matrix: { indptr: Handle; indices: Handle; values: Handle; cols: number; }, update: { indptr: Handle; indices: Handle; values: Handle; cols: number; }, rowOf: Handle | TypedArray, colOf: Handle | TypedArray, rowCount: number, colCount: number, duplicates: 'sum' | 'refuse' | 'first' | 'last' | 'max'): { indptr: Handle; indices: Handle; values: Handle; cols: number; };
  takeRows(control: Control | undefined, matrix: Handle | TypedArray, rows: Handle | TypedArray): Promise<Handle>;
  takeRowsSync(matrix: Handle | TypedArray, rows: Handle | TypedArray): Handle;
  replaceRows(control: Control | undefined, matrix: Handle | TypedArray, rowCount: number, rows: Handle | TypedArray, values: Handle | TypedArray): Promise<Handle>;
  replaceRowsSync(matrix: Handle | TypedArray, rowCount: number, rows: Handle | TypedArray, values: Handle | TypedArray): Handle;
  randomScores(control: Control | undefined, seed: number, users: Handle | TypedArray, items: number): Promise<Handle>;
  randomScoresSync(seed: number, users: Handle | TypedArray, items: number): Handle;
  randomPairScores(control: Control | undefined, seed: number, users: Handle | TypedArray, items: Handle | TypedArray): Promise<Handle>;
  randomPairScoresSync(seed: number, users: Handle | TypedArray, items: Handle | TypedArray): Handle;
  measureRead(control: Control | undefined, data: Handle | TypedArray, passes: number): Promise<readonly number[]>;
  measureReadSync(data: Handle | TypedArray, passes: number): readonly number[];
  measureFma(control: Control | undefined, passes: number): Promise<readonly number[]>;
  measureFmaSync(passes: number): readonly number[];
  topk(control: Control | undefined, queries: Handle | TypedArray, items: Handle | TypedArray, itemNorms: Handle | TypedArray | undefined, k: number, metric: 'innerProduct' | 'cosine' | 'l2', filter: { allowed?: Handle | undefined; seen?: { indptr: Handle; indices: Handle; values: Handle; cols: number; } | undefined; seenRows?: Handle | undefined; }): Promise<{ ids: Handle; scores: Handle; }>;
  topkSync(queries: Handle | TypedArray, items: Handle | TypedArray, itemNorms: Handle | TypedArray | undefined, k: number, metric: 'innerProduct' | 'cosine' | 'l2', filter: { allowed?: Handle | undefined; seen?: { indptr: Handle; indices: Handle; values: Handle; cols: number; } | undefined; seenRows?: Handle | undefined; }): { ids: Handle; scores: Handle; };
  selectTopk(control: Control | undefined, scores: Handle | TypedArray, k: number, filter: { allowed?: Handle | undefined; seen?: { indptr: Handle; indices: Handle; values: Handle; cols: number; } | undefined; seenRows?: Handle | undefined; }): Promise<{ ids: Handle; scores: Handle; }>;
  selectTopkSync(scores: Handle | TypedArray, k: number, filter: { allowed?: Handle | undefined; seen?: { indptr: Handle; indices: Handle; values: Handle; cols: number; } | undefined; seenRows?: Handle | undefined; }): { ids: Handle; scores: Handle; };
  squaredNorms(control: Control | undefined, items: Handle | TypedArray): Promise<Handle>;
  squaredNormsSync(items: Handle | TypedArray): Handle;
  rankCounts(control: Control | undefined, queries: Handle | TypedArray, items: Handle | TypedArray, positives: { indptr: Handle; indices: Handle; values: Handle; cols: number; }, filter: { allowed?: Handle | undefined; seen?: { indptr: Handle; indices: Handle; values: Handle; cols: number; } | undefined; seenRows?: Handle | undefined; }): Promise<{ above: Handle; equal: Handle; }>;
  rankCountsSync(queries: Handle | TypedArray, items: Handle | TypedArray, positives: { indptr: Handle; indices: Handle; values: Handle; cols: number; }, filter: { allowed?: Handle | undefined; seen?: { indptr: Handle; indices: Handle; values: Handle; cols: number; } | undefined; seenRows?: Handle | undefined; }): { above: Handle; equal: Handle; };
  pairScores(control: Control | undefined, users: Handle | TypedArray, items: Handle | TypedArray, userIds: Handle | TypedArray, itemIds: Handle | TypedArray): Promise<Handle>;
  pairScoresSync(users: Handle | TypedArray, items: Handle | TypedArray, userIds: Handle | TypedArray, itemIds: Handle | TypedArray): Handle;
}
