import { boolean, integer, knownOptions, oneOf, onlyCpu } from '../check.js';
import type { Id } from '../data/ids.js';
import { metrics, type VectorMetric } from '../ops/top-k.js';
import type { SearchOptions } from './flat-index.js';

export interface HnswIndexOptions {
  /** 'innerProduct' unless given. */
  metric?: VectorMetric | undefined;
  /** Neighbours of a vector in the graph (the paper's M), twice as many on its lowest level; 16 unless given. */
  connectivity?: number | undefined;
  /** Candidates looked at to link a vector (efConstruction); 128 unless given. More: a better graph, built more slowly. */
  expansionAdd?: number | undefined;
  /** Candidates looked at by a search (ef), unless the search says; 64 unless given. More: higher recall, fewer queries a second. */
  expansionSearch?: number | undefined;
}

export interface HnswBuildOptions {
  /**
   * Link with all threads. Quicker, but the order in which they come to it changes the graph, and with it now and then an
   * answer: two builds differ. Without it one thread works, and the same changes in the same order give the same graph.
   */
  parallel?: boolean | undefined;
}

export interface HnswSearchOptions<T extends Id = Id> extends SearchOptions<T> {
  /** Candidates looked at (ef), at least k; the index's own unless given. */
  expansionSearch?: number | undefined;
}

export interface HnswIndexStats {
  /**
   * Nodes of the graph that stand for no vector: what `remove` and changes that failed have left. They cost memory, and
   * searches that pass them. Added and updated vectors take their places; `compact` drops them.
   */
  signposts: number;
  /** Queries since the index was made that were answered by the graph. */
  approximate: number;
  /** Queries that were compared with every vector that they might return: where a filter leaves few, or the graph gave fewer than k. */
  exact: number;
}

/** @internal */
export type HnswSettings = Required<{ [K in keyof HnswIndexOptions]: NonNullable<HnswIndexOptions[K]> }>;

/** Those of the settings that are numbers. @internal */
export const numberNames = ['connectivity', 'expansionAdd', 'expansionSearch'] as const;

/** As `knownOptions`; of a device it says where to go. @internal */
export function knownGraphOptions(options: object, names: readonly string[]): void {
  const { device } = (options ?? {}) as { device?: unknown };
  onlyCpu(
    'options',
    device,
    'the graph of an HnswIndex is on the CPU alone; a FlatIndex with this device searches on a GPU',
  );
  knownOptions(options, names);
}

/** @internal */
export const checkExpansion = (name: string, value: number): number => integer(name, value, 1, 65536);

/** @internal */
export function checkSettings(options: HnswIndexOptions): HnswSettings {
  return {
    metric: oneOf('metric', options.metric ?? 'innerProduct', metrics),
    connectivity: integer('connectivity', options.connectivity ?? 16, 2, 1024),
    expansionAdd: checkExpansion('expansionAdd', options.expansionAdd ?? 128),
    expansionSearch: checkExpansion('expansionSearch', options.expansionSearch ?? 64),
  };
}

/** @internal */
export const checkParallel = ({ parallel = false }: HnswBuildOptions): boolean => boolean('parallel', parallel);
