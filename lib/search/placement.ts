import { integer } from '../check.js';
import { device as named } from '../device.js';
import { type JobOptions, runJob } from '../job.js';
import { native } from '../native.js';
import { Tensor } from '../tensor.js';
import type { SegmentTensors } from './segment.js';

/** Where the vectors of an index are searched. */
export interface PlacementOptions {
  /**
   * Where the tensor of vectors is, else 'cpu', unless given; 'cuda', 'cuda:1', ... or 'auto', see `device()`. On a GPU
   * the vectors lie in its memory; queries and filters are sent there for each search.
   */
  device?: string | undefined;
  /**
   * The most bytes of a GPU's memory that vectors may take: a third of what is free unless given. A run of vectors that takes
   * more (the first ones, those added later, or what became one of them) stays in host memory and goes to the GPU in blocks
   * of at most so many bytes for each search, which pays for many queries at once.
   */
  deviceBytes?: number | undefined;
}

/** @internal */
export interface Placement {
  /** 'cpu', 'cuda:0', ... */
  readonly device: string;
  readonly bytes: number | undefined;
}

/** @throws ERR_DEVICE; ERR_ARGUMENT; ERR_RANGE @internal */
export function placementOf({ device, deviceBytes }: PlacementOptions): Placement {
  return {
    device: device === undefined ? 'cpu' : named(device),
    bytes: deviceBytes === undefined ? undefined : integer('deviceBytes', deviceBytes, 1, Number.MAX_SAFE_INTEGER),
  };
}

/** The same tensors in the memory of the device, instead of those given; those given where they are too large. @internal */
export async function placed(
  tensors: SegmentTensors,
  { device, bytes }: Placement,
  { signal }: JobOptions,
): Promise<SegmentTensors> {
  if (device === 'cpu') return tensors;
  const { vectors, norms, codes } = tensors;
  const parts = [vectors, norms, codes?.codes, codes?.scales, codes?.residuals];
  const given = parts.filter((t) => t !== undefined);
  const handles = given.map((t) => t.handle);
  const moved = await runJob('long', { signal }, (control) => native.indexPlace(control, handles, device, bytes));
  if (moved.length === 0) return tensors;
  const there = new Map(given.map((t, i) => [t, new Tensor(moved[i]!)]));
  for (const t of given) t.dispose();
  const at = <D extends Tensor>(t: D): D => there.get(t) as D;
  return {
    vectors: at(vectors),
    norms: norms && at(norms),
    codes: codes && { codes: at(codes.codes), scales: at(codes.scales), residuals: at(codes.residuals) },
  };
}
