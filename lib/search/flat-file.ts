import { oneOf } from '../check.js';
import type { Id } from '../data/ids.js';
import { TopknotError } from '../errors.js';
import { loadIds, saveIds } from '../format/ids.js';
import { mapSafetensors, readSafetensors, writeSafetensors } from '../format/safetensors.js';
import type { JobOptions } from '../job.js';
import type { Tensor } from '../tensor.js';
import { type Codes, merge, prepare, requireFinite, Segment, type SegmentTensors } from './segment.js';
import { type IndexMetric, metricOf, storages, type VectorStorage } from './storage.js';

// The file of a FlatIndex, version 2: `vectors` as they are stored, `norms` F32 for cosine, l2 and int8, and for int8
// `codes` U8, `scales` and `residuals` F32 (segment.ts). Metadata: index 'flat', version, storage, metric; ids as in
// format/ids.ts. Version 1 had float32 vectors only, and no norms.
const version = '2';

/** @internal */
export async function saveFlat(
  path: string,
  segments: readonly Segment[],
  storage: VectorStorage,
  metric: IndexMetric,
  options: JobOptions,
): Promise<void> {
  if (segments.every((s) => s.live === 0))
    throw new TopknotError('ERR_VALUE', 'index: expected at least one vector to save but there is none');
  const { ids, tensors } = await merge(segments, undefined, { signal: options.signal });
  const saved = await saveIds('items', ids, options.signal);
  const { vectors, norms, codes } = tensors;
  const parts = Object.entries({ vectors, norms, ...codes }).filter((e): e is [string, Tensor] => e[1] !== undefined);
  const onHost = parts.map(([name, t]): [string, Tensor] => [name, t.device === 'cpu' ? t : t.to('cpu')]);
  await writeSafetensors(path, [...onHost, ...saved.tensors], {
    ...options,
    metadata: { format: 'topknot', version, index: 'flat', storage, metric, ...saved.metadata },
  });
}

/** @internal */
export async function loadFlat<T extends Id>(
  path: string,
  { map = false, ...options }: JobOptions & { map?: boolean | undefined },
): Promise<{ segment: Segment<T>; storage: VectorStorage; metric: IndexMetric }> {
  const { signal } = options;
  const mapped = signal ? { signal } : {};
  const { tensors, metadata } = map ? await mapSafetensors(path, mapped) : await readSafetensors(path, options);
  const vectors = tensors.get('vectors');
  if (metadata.get('format') !== 'topknot' || metadata.get('index') !== 'flat' || vectors?.shape.length !== 2)
    throw new TopknotError('ERR_FORMAT', `path: '${path}' is a safetensors file but not an index saved by topknot`);
  const written = metadata.get('version');
  if (written !== '1' && written !== version)
    throw new TopknotError(
      'ERR_FORMAT',
      `path: '${path}' is an index of version ${written}; this topknot reads 1 and ${version}: update it`,
    );
  try {
    const storage = oneOf('storage', metadata.get('storage') ?? 'float32', storages);
    const metric = metricOf((metadata.get('metric') ?? '') as IndexMetric, storage);
    const ids = await loadIds<T>('items', vectors.shape[0]!, metadata, tensors, signal);
    const found = written === '1' ? undefined : parts(tensors, vectors, storage, metric);
    // Mapped vectors stay where they are: to check them would be to read them all.
    if (!map || !found) await requireFinite(vectors, options);
    const segment = new Segment(ids, found ?? (await prepare(vectors, storage, metric, options)));
    return { segment, storage, metric };
  } catch (cause) {
    if (signal?.aborted || !(cause instanceof TopknotError)) throw cause;
    throw new TopknotError('ERR_FORMAT', `path: '${path}' is not a whole index: ${cause.message}`, { cause });
  }
}

/** The tensors that version 2 has, checked. */
function parts(
  tensors: ReadonlyMap<string, Tensor>,
  vectors: Tensor,
  storage: VectorStorage,
  metric: IndexMetric,
): SegmentTensors {
  const [rows, cols] = vectors.shape as [number, number];
  const part = (name: string, dtype: string, shape: readonly number[]) => {
    const t = tensors.get(name);
    if (t?.dtype === dtype && String(t.shape) === String(shape)) return t;
    throw new TopknotError('ERR_FORMAT', `${name}: expected a tensor of ${dtype} of shape [${shape}]`);
  };
  const floats = ['float32', 'float16', 'bfloat16'].includes(vectors.dtype);
  if (storage === 'binary' ? vectors.dtype !== 'uint8' : storage === 'int8' ? !floats : vectors.dtype !== storage)
    throw new TopknotError(
      'ERR_FORMAT',
      `vectors: expected those of storage '${storage}' but they are ${vectors.dtype}`,
    );
  const normed = storage === 'int8' || metric === 'cosine' || metric === 'l2';
  const codes = storage === 'int8' && {
    codes: part('codes', 'uint8', [rows, cols]),
    scales: part('scales', 'float32', [rows]),
    residuals: part('residuals', 'float32', [rows]),
  };
  return {
    vectors,
    norms: normed ? (part('norms', 'float32', [rows]) as Tensor<'float32'>) : undefined,
    codes: codes ? (codes as Codes) : undefined,
  };
}
