import { deviceName, knownOptions } from '../check.js';
import { CsrMatrix } from '../csr.js';
import type { Id, Ids } from '../data/ids.js';
import { TopknotError } from '../errors.js';
import { loadIds, saveIds } from '../format/ids.js';
import { readSafetensors, writeSafetensors } from '../format/safetensors.js';
import { checkJob, type JobOptions, runJob } from '../job.js';
import { native } from '../native.js';
import type { Tensor } from '../tensor.js';

/** What the file of a model holds. @internal */
export interface Saved<U extends Id, I extends Id> {
  /** Which model: 'als', ... */
  readonly model: string;
  readonly options: object;
  readonly users: Ids<U>;
  readonly items: Ids<I>;
  readonly seen: CsrMatrix;
  readonly tensors: ReadonlyMap<string, Tensor>;
}

/** Options of `load` of models that can compute on GPUs. */
export interface LoadOptions extends JobOptions {
  /** Where the model is to compute, as the option of its constructor: 'cpu' unless given. */
  device?: string | undefined;
}

const version = '1';

/** A sparse matrix under the names that `readModel` reads it by. @internal */
export const matrixTensors = (name: string, { indptr, indices, values }: CsrMatrix) =>
  [
    [`${name}.indptr`, indptr],
    [`${name}.indices`, indices],
    [`${name}.values`, values],
  ] as const;

/** Where a fit ran is no property of the model: whoever loads it may have no GPU. */
const notTheModels = new Set(['device', 'deviceBytes']);

/** Writes a model: its tensors, interactions.{indptr,indices,values}, the ids, and the options in the metadata. @internal */
export async function writeModel<U extends Id, I extends Id>(
  path: string,
  saved: Saved<U, I>,
  options: JobOptions,
): Promise<void> {
  const { users, items, seen } = saved;
  const userIds = await saveIds('users', users, options.signal);
  const itemIds = await saveIds('items', items, options.signal);
  const tensors: (readonly [string, Tensor])[] = [
    ...saved.tensors,
    ...matrixTensors('interactions', seen),
    ...userIds.tensors,
    ...itemIds.tensors,
  ];
  await writeSafetensors(path, tensors, {
    ...options,
    metadata: {
      format: 'topknot',
      version,
      model: saved.model,
      options: JSON.stringify(saved.options, (key, value) => (notTheModels.has(key) ? undefined : value)),
      shape: JSON.stringify(seen.shape),
      ...userIds.metadata,
      ...itemIds.metadata,
    },
  });
}

type ShapeOf<O> = (users: number, items: number, options: O) => readonly number[] | undefined;

/**
 * Reads and checks the file of a model. `shapes` names the model's own tensors and `sparse` its own sparse matrices, each
 * with the shape that it must have; undefined: a model of these options has none of that name.
 * @throws ERR_IO; ERR_FORMAT for a file that is not what writeModel makes
 * @internal
 */
export async function readModel<
  U extends Id,
  I extends Id,
  O extends object,
  M extends string,
  N extends string = never,
>(
  path: string,
  model: string,
  shapes: Record<M, ShapeOf<O>>,
  given: LoadOptions,
  sparse: Record<N, ShapeOf<O>> = {} as Record<N, ShapeOf<O>>,
): Promise<
  Omit<Saved<U, I>, 'options' | 'tensors'> & {
    options: O;
    tensors: ReadonlyMap<M, Tensor<'float32'>>;
    matrices: ReadonlyMap<N, CsrMatrix>;
  }
> {
  const bad = (what: string, cause?: unknown): never => {
    throw new TopknotError('ERR_FORMAT', `path: '${path}' ${what}`, { cause });
  };
  knownOptions(given, ['device', 'signal', 'onProgress']);
  const { device, ...options } = given;
  if (device !== undefined) deviceName(device);
  checkJob(options);
  const { tensors, metadata } = await readSafetensors(path, options);
  const tensorOf = (name: string) => tensors.get(name) ?? bad(`lacks the tensor '${name}'`);
  if (metadata.get('format') !== 'topknot') bad('is a safetensors file but not a model saved by topknot');
  if (metadata.get('version') !== version)
    bad(`has version ${metadata.get('version')}; this topknot reads version ${version}`);
  if (metadata.get('model') !== model) bad(`holds the model '${metadata.get('model')}', expected '${model}'`);
  try {
    const parse = (key: string): unknown => JSON.parse(metadata.get(key) ?? 'null');
    const saved = (parse('options') ?? {}) as O;
    const shape = parse('shape') as readonly number[];
    if (!Array.isArray(shape) || shape.length !== 2) bad('has no valid shape');
    const [rows, cols] = shape as [number, number];
    const users = await loadIds<U>('users', rows, metadata, tensors, options.signal);
    const items = await loadIds<I>('items', cols, metadata, tensors, options.signal);
    const matrixOf = async (name: string, cols: number): Promise<CsrMatrix> => {
      const part = (which: string) => tensorOf(`${name}.${which}`).handle;
      const parts = { indptr: part('indptr'), indices: part('indices'), values: part('values'), cols };
      await runJob('long', { signal: options.signal }, (control) => native.csrValidate(control, parts));
      return new CsrMatrix(parts);
    };
    const seen = await matrixOf('interactions', cols);
    const { leastWeight } = await runJob('long', { signal: options.signal }, (control) =>
      native.interactionStats(control, seen.handles),
    );
    if (leastWeight < 0) bad('has interactions of negative weight');
    if (seen.shape[0] !== rows) bad(`has interactions of ${seen.shape[0]} users, expected ${rows}`);
    const own = new Map<M, Tensor<'float32'>>();
    for (const name of Object.keys(shapes) as M[]) {
      const wanted = shapes[name](rows, cols, saved);
      if (!wanted) continue;
      const tensor = tensorOf(name);
      if (tensor.dtype !== 'float32' || tensor.shape.join() !== wanted.join())
        bad(`has a tensor '${name}' of ${tensor.dtype} [${tensor.shape}], expected float32 [${wanted}]`);
      if (tensor.shape.length === 2)
        await runJob('long', { signal: options.signal }, (control) => native.requireFinite(control, tensor.handle));
      own.set(name, tensor as Tensor<'float32'>);
    }
    const matrices = new Map<N, CsrMatrix>();
    for (const name of Object.keys(sparse) as N[]) {
      const wanted = sparse[name](rows, cols, saved);
      if (!wanted) continue;
      const matrix = await matrixOf(name, wanted[1]!);
      if (matrix.shape[0] !== wanted[0])
        bad(`has a matrix '${name}' of ${matrix.shape[0]} rows, expected ${wanted[0]}`);
      matrices.set(name, matrix);
    }
    return {
      model,
      options: device === undefined ? saved : { ...saved, device },
      users,
      items,
      seen,
      tensors: own,
      matrices,
    };
  } catch (error) {
    if (options.signal?.aborted || (error instanceof TopknotError && error.code === 'ERR_FORMAT')) throw error;
    return bad('is not a whole model', error);
  }
}

/** A model of the options in a file. @internal */
export function restored<T>(path: string, make: () => T): T {
  try {
    return make();
  } catch (cause) {
    if (cause instanceof TopknotError && cause.code === 'ERR_DEVICE') throw cause; // of a model without a GPU side
    throw new TopknotError('ERR_FORMAT', `path: '${path}' holds options that no model has`, { cause });
  }
}
