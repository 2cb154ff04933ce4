import { CsrMatrix } from '../csr.js';
import type { Tensor } from '../tensor.js';

type Part = Tensor<'float32'> | CsrMatrix;
const lentOut = new WeakMap<Part, Part>();

/**
 * What a caller gets of a fit: a handle of its own on the same memory, so that disposing it leaves the fit whole. It is the
 * same handle each time, until it has been disposed.
 * @internal
 */
export function lent<T extends Part>(part: T): T {
  const before = lentOut.get(part) as T | undefined;
  if (before && !isDisposed(before)) return before;
  const made = part.share() as T;
  lentOut.set(part, made);
  return made;
}

/** Frees what was lent of a part. @internal */
export function takeBack(part: unknown): void {
  lentOut.get(part as Part)?.dispose();
}

const isDisposed = (part: Part): boolean =>
  part instanceof CsrMatrix ? [part.indptr, part.indices, part.values].some((t) => t.disposed) : part.disposed;
