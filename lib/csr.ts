import type { NumericArray } from './dtype.js';
import { expected } from './errors.js';
import { type JobOptions, runJob } from './job.js';
import { native } from './native.js';
import type { Handle } from './native-ops.js';
import { Tensor, tensor } from './tensor.js';

/** What to do with two entries for the same cell: 'refuse' throws ERR_VALUE, the others keep one. */
export type Duplicates = 'sum' | 'refuse' | 'first' | 'last' | 'max';

/** A CSR matrix as the addon passes it. @internal */
export interface CsrHandles {
  indptr: Handle;
  indices: Handle;
  values: Handle;
  cols: number;
}

/**
 * A sparse matrix in compressed sparse rows: immutable, validated when it is made.
 *
 * `indptr` int64 [rows + 1] rises from 0 to nnz, `indices` int32 [nnz] rise within a row, `values` float32 [nnz] are
 * finite.
 */
export class CsrMatrix implements Disposable {
  readonly shape: readonly [rows: number, cols: number];
  readonly nnz: number;
  readonly indptr: Tensor<'int64'>;
  readonly indices: Tensor<'int32'>;
  readonly values: Tensor<'float32'>;

  /** @internal From parts that the addon has made or validated. */
  constructor(parts: CsrHandles) {
    if (typeof parts !== 'object' || parts === null)
      expected('parts', 'matrices from CsrMatrix.from or .fromCoo', parts);
    this.indptr = new Tensor(parts.indptr);
    this.indices = new Tensor(parts.indices);
    this.values = new Tensor(parts.values);
    this.shape = [this.indptr.size - 1, parts.cols];
    this.nnz = this.indices.size;
    Object.freeze(this.shape); // The engine trusts what has been validated.
    Object.freeze(this);
  }

  /**
   * From its three arrays, copied.
   * @throws ERR_SHAPE, ERR_RANGE (an id outside 0 to cols - 1) or ERR_VALUE (indptr that falls, ids that do not rise
   * within a row, values that are not finite).
   */
  static async from(parts: {
    indptr: BigInt64Array | readonly number[];
    indices: Int32Array | readonly number[];
    values: Float32Array | readonly number[];
    cols: number;
  }): Promise<CsrMatrix> {
    const matrix = new CsrMatrix({
      indptr: tensor(parts.indptr as NumericArray, { dtype: 'int64' }).handle,
      indices: tensor(parts.indices as NumericArray, { dtype: 'int32' }).handle,
      values: tensor(parts.values as NumericArray, { dtype: 'float32' }).handle,
      cols: parts.cols,
    });
    await runJob('query', {}, (control) => native.csrValidate(control, matrix.handles));
    return matrix;
  }

  /**
   * From triplets (row, column, value), in any order. Without values every entry is 1.
   * @param options.shape [rows, columns]
   * @param options.duplicates what to do with two entries for one cell; 'sum' unless given
   * @throws ERR_SHAPE, ERR_RANGE or ERR_VALUE
   */
  static async fromCoo(
    rows: Int32Array | Tensor<'int32'>,
    cols: Int32Array | Tensor<'int32'>,
    values: Float32Array | Tensor<'float32'> | undefined,
    options: { shape: readonly [number, number]; duplicates?: Duplicates } & JobOptions,
  ): Promise<CsrMatrix> {
    const [rowCount, colCount] = options.shape;
    const raw = <T>(x: T | Tensor) => (x instanceof Tensor ? x.handle : x);
    return new CsrMatrix(
      await runJob('long', options, (control) =>
        native.csrFromCoo(control, raw(rows), raw(cols), raw(values), rowCount, colCount, options.duplicates ?? 'sum'),
      ),
    );
  }

  /** The columns as rows. */
  async transpose(options: JobOptions = {}): Promise<CsrMatrix> {
    return new CsrMatrix(await runJob('long', options, (control) => native.csrTranspose(control, this.handles)));
  }

  /** The same matrix in handles of its own: either can be disposed without the other. Shares memory. @internal */
  share(): CsrMatrix {
    const { indptr, indices, values } = this;
    return new CsrMatrix({
      indptr: indptr.share().handle,
      indices: indices.share().handle,
      values: values.share().handle,
      cols: this.shape[1],
    });
  }

  /** @internal For passing to the addon. */
  get handles(): CsrHandles {
    return {
      indptr: this.indptr.handle,
      indices: this.indices.handle,
      values: this.values.handle,
      cols: this.shape[1],
    };
  }

  /** Frees the memory now, unless a running job still needs it. */
  dispose(): void {
    this.indptr.dispose();
    this.indices.dispose();
    this.values.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}
