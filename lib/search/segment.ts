import { type Id, Ids } from '../data/ids.js';
import { dtypeBytes } from '../dtype.js';
import { type JobOptions, runJob } from '../job.js';
import { native } from '../native.js';
import { allowedBits, type ItemFilter } from '../ops/item-filter.js';
import { inSlices } from '../slices.js';
import { Tensor } from '../tensor.js';
import { type Placement, placed } from './placement.js';
import type { IndexMetric, VectorStorage } from './storage.js';

/** 8-bit codes of vectors: x ≈ scale · (code - 128), and at least the length of what that leaves out. @internal */
export interface Codes {
  readonly codes: Tensor<'uint8'>;
  readonly scales: Tensor<'float32'>;
  readonly residuals: Tensor<'float32'>;
}

/** The tensors of some vectors. @internal */
export interface SegmentTensors {
  readonly vectors: Tensor;
  /** Squared lengths, where the metric or the codes need them. */
  readonly norms: Tensor<'float32'> | undefined;
  readonly codes: Codes | undefined;
}

/**
 * A run of vectors under their ids, some of which may have been removed. Immutable: a change makes a new one that shares
 * the tensors.
 * @internal
 */
export class Segment<T extends Id = Id> {
  /** Vectors that have not been removed. */
  readonly live: number;
  /** What `native` gives where there is no filter: made once, as most searches ask for it. */
  #unfiltered: NativeSegment | undefined;

  /** @param alive bit i % 8 of byte i / 8: row i has not been removed; whole words of 64 bits; undefined: none has */
  constructor(
    readonly ids: Ids<T>,
    readonly tensors: SegmentTensors,
    readonly alive?: Uint8Array | undefined,
    removed = 0,
  ) {
    this.live = ids.size - removed;
  }

  /** The row of an id that has not been removed, or -1. */
  rowOf(id: T): number {
    const row = this.ids.indexOf(id);
    return row >= 0 && this.isLive(row) ? row : -1;
  }

  isLive(row: number): boolean {
    return !this.alive || ((this.alive[row >> 3]! >> (row & 7)) & 1) === 1;
  }

  /** Without these rows, which are live and distinct. */
  without(rows: readonly number[]): Segment<T> {
    if (rows.length === 0) return this;
    const alive = this.alive?.slice() ?? new Uint8Array(8 * Math.ceil(this.ids.size / 64)).fill(255);
    for (const row of rows) alive[row >> 3]! &= ~(1 << (row & 7));
    return new Segment(this.ids, this.tensors, alive, this.ids.size - this.live + rows.length);
  }

  /** The segment as the addon takes it, with the rows that a filter leaves. */
  native(filter: ItemFilter<T> | undefined, withCodes = true): NativeSegment {
    const { vectors } = this.tensors;
    if (filter || !withCodes || vectors.disposed) return this.#native(filter, withCodes);
    this.#unfiltered ??= this.#native(undefined, true);
    return this.#unfiltered;
  }

  #native(filter: ItemFilter<T> | undefined, withCodes: boolean): NativeSegment {
    const { vectors, norms, codes } = this.tensors;
    let allowed = filter && allowedBits(this.ids, filter);
    const alive = words(this.alive);
    if (allowed && alive) for (let i = 0; i < alive.length; i++) allowed[i]! &= alive[i]!;
    else allowed ??= alive;
    return {
      vectors: vectors.handle,
      norms: norms?.handle,
      codes:
        codes && withCodes
          ? { codes: codes.codes.handle, scales: codes.scales.handle, residuals: codes.residuals.handle }
          : undefined,
      allowed,
    } as unknown as NativeSegment;
  }

  /** Its tensors. */
  get all(): Tensor[] {
    const { vectors, norms, codes } = this.tensors;
    return [vectors, norms, codes?.codes, codes?.scales, codes?.residuals].filter((t) => t !== undefined);
  }

  dispose(): void {
    for (const t of this.all) t.dispose();
  }
}

/** The bitmap as the addon takes it. */
const words = (bits: Uint8Array | undefined): BigInt64Array | undefined =>
  bits && new BigInt64Array(bits.buffer, bits.byteOffset, bits.length / 8);

type NativeSegment = Parameters<typeof native.indexSearchSync>[1][number];

/** @throws ERR_VALUE for a number that is not finite @internal */
export async function requireFinite(vectors: Tensor, { signal }: JobOptions): Promise<void> {
  if (vectors.dtype === 'uint8') return;
  await runJob('long', { signal }, (control) => native.requireFinite(control, vectors.handle));
}

/** What a search needs beside the vectors, which have the element type of the storage. @internal */
export async function prepare(
  vectors: Tensor,
  storage: VectorStorage,
  metric: IndexMetric,
  { signal }: JobOptions,
): Promise<SegmentTensors> {
  if (storage === 'binary' || (metric === 'innerProduct' && storage !== 'int8'))
    return { vectors, norms: undefined, codes: undefined };
  const norms = new Tensor<'float32'>(
    await runJob('long', { signal }, (control) => native.squaredNorms(control, vectors.handle)),
  );
  if (storage !== 'int8') return { vectors, norms, codes: undefined };
  const made = await runJob('long', { signal }, (control) =>
    native.int8Codes(control, vectors.handle, metric === 'cosine'),
  );
  const codes = {
    codes: new Tensor<'uint8'>(made.codes),
    scales: new Tensor<'float32'>(made.scales),
    residuals: new Tensor<'float32'>(made.residuals),
  };
  return { vectors, norms, codes };
}

/** One segment of the live vectors of several, in their order; on the CPU where no placement is given. @internal */
export async function merge<T extends Id>(
  segments: readonly Segment<T>[],
  placement: Placement | undefined,
  options: JobOptions,
): Promise<Segment<T>> {
  const [first] = segments as [Segment<T>];
  if (segments.length === 1 && !first.alive) return first;
  const { signal } = options;
  const kept = segments.map((s) => words(s.alive)) as never;
  const joined = async <D extends Tensor>(of: (t: SegmentTensors) => D): Promise<D> => {
    const parts = segments.map((s) => of(s.tensors).handle);
    return new Tensor(await runJob('long', { signal }, (control) => native.keepRows(control, parts, kept))) as D;
  };
  const { norms, codes } = first.tensors;
  const tensors = {
    vectors: await joined((t) => t.vectors),
    norms: norms && (await joined((t) => t.norms!)),
    codes: codes && {
      codes: await joined((t) => t.codes!.codes),
      scales: await joined((t) => t.codes!.scales),
      residuals: await joined((t) => t.codes!.residuals),
    },
  };
  const ids = new Ids(await liveIds(segments, signal));
  await ids.ready();
  if (!placement) return new Segment(ids, tensors);
  // What was on the GPU fits there again, though a third of what is free beside it may be less.
  const there = segments.every((s) => s.tensors.vectors.device !== 'cpu');
  const bytes = placement.bytes ?? (there ? bytesOf(tensors) : undefined);
  return new Segment(ids, await placed(tensors, { ...placement, bytes }, options));
}

function bytesOf({ vectors, norms, codes }: SegmentTensors): number {
  const parts = [vectors, norms, codes?.codes, codes?.scales, codes?.residuals];
  return parts.reduce((sum, t) => sum + (t ? t.size * dtypeBytes[t.dtype] : 0), 0);
}

/** The ids of live vectors, in their order. @internal */
export async function liveIds<T extends Id>(segments: readonly Segment<T>[], signal?: AbortSignal): Promise<T[]> {
  const ids: T[] = [];
  for (const segment of segments) {
    await inSlices(
      segment.ids.size,
      (begin, end) => {
        for (let row = begin; row < end; row++) if (segment.isLive(row)) ids.push(segment.ids.at(row));
      },
      signal,
    );
  }
  return ids;
}
