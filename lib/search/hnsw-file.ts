import { boolean, finite, integer } from '../check.js';
import type { Id, Ids } from '../data/ids.js';
import { TopknotError } from '../errors.js';
import { loadIds, saveIds } from '../format/ids.js';
import { mapSafetensors, readSafetensors, writeSafetensors } from '../format/safetensors.js';
import { type JobOptions, runJob } from '../job.js';
import { native } from '../native.js';
import type { Resource } from '../native-ops.js';
import type { VectorMetric } from '../ops/top-k.js';
import { Tensor } from '../tensor.js';
import { checkSettings, type HnswSettings, numberNames } from './hnsw-options.js';

// The file of an HnswIndex, version 2: `vectors` F32 [nodes, w], `dimensions` numbers each (of length 1 for cosine) and
// zeros up to a multiple of 16; `keys` I32 [nodes], which of the ids a node has, or -1; `graph` U8, as
// native/ops/hnsw_graph.cpp lays it out, so that it can be searched where it lies. Metadata: index 'hnsw', version, the
// settings, dimensions, count (of the ids), bound (HnswIndex::bound_); ids as in format/ids.ts.
const version = '2';
const parts = ['vectors', 'keys', 'graph'] as const;

/** @internal */
export async function saveHnsw(
  path: string,
  index: Resource,
  ids: Ids,
  settings: HnswSettings,
  options: JobOptions,
): Promise<void> {
  if (ids.size === 0)
    throw new TopknotError('ERR_VALUE', 'index: expected at least one vector to save but there is none');
  const { signal } = options;
  const { dimensions, bound, ...state } = await runJob('long', { signal }, (control) =>
    native.hnswState(control, index),
  );
  const tensors = parts.map((name) => [name, new Tensor(state[name])] as const);
  try {
    const saved = await saveIds('items', ids, signal);
    const metadata = {
      format: 'topknot',
      version,
      index: 'hnsw',
      metric: settings.metric,
      ...Object.fromEntries(numberNames.map((name) => [name, String(settings[name])])),
      dimensions: String(dimensions),
      count: String(ids.size),
      bound: String(bound),
      ...saved.metadata,
    };
    await writeSafetensors(path, [...tensors, ...saved.tensors], { ...options, metadata });
  } finally {
    for (const [, part] of tensors) part.dispose();
  }
}

/** @internal */
export async function loadHnsw<T extends Id>(
  path: string,
  { map = false, ...options }: JobOptions & { map?: boolean | undefined },
): Promise<{ index: Resource; ids: Ids<T>; dimensions: number; settings: HnswSettings }> {
  boolean('map', map);
  const { signal } = options;
  const { tensors, metadata } = map
    ? await mapSafetensors(path, { randomAccess: true, ...(signal ? { signal } : {}) })
    : await readSafetensors(path, options);
  if (metadata.get('format') !== 'topknot' || metadata.get('index') !== 'hnsw')
    throw new TopknotError('ERR_FORMAT', `path: '${path}' is a safetensors file but not an HnswIndex saved by topknot`);
  if (metadata.get('version') !== version)
    throw new TopknotError(
      'ERR_FORMAT',
      `path: '${path}' is an HnswIndex of version '${metadata.get('version')}'; this topknot reads version ${version}`,
    );
  try {
    const number = (name: string) => Number(metadata.get(name));
    const settings = checkSettings({
      metric: metadata.get('metric') as VectorMetric,
      ...Object.fromEntries(numberNames.map((name) => [name, number(name)])),
    });
    const part = (name: (typeof parts)[number]) => {
      const t = tensors.get(name);
      if (!t) throw new TopknotError('ERR_FORMAT', `the tensor '${name}' is missing`);
      return t.handle;
    };
    const dimensions = integer('dimensions', number('dimensions'), 1);
    const state = {
      vectors: part('vectors'),
      keys: part('keys'),
      graph: part('graph'),
      dimensions,
      bound: finite('bound', number('bound'), 0),
    };
    const count = integer('count', number('count'), 1);
    const ids = await loadIds<T>('items', count, metadata, tensors, signal);
    const { index, live } = await runJob('long', { signal }, (control) =>
      native.hnswLoad(control, state, settings, map),
    );
    if (live !== count) throw new TopknotError('ERR_FORMAT', `keys: expected ${count} but the file has ${live}`);
    return { index, ids, dimensions, settings };
  } catch (cause) {
    if (signal?.aborted || !(cause instanceof TopknotError) || cause.code === 'ERR_DEPENDENCY') throw cause;
    throw new TopknotError('ERR_FORMAT', `path: '${path}' is not a whole index: ${cause.message}`, { cause });
  } finally {
    for (const name of parts) tensors.get(name)?.dispose(); // the index has its own hold on what it needs
  }
}
