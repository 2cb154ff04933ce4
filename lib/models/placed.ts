import type { CsrHandles, CsrMatrix } from '../csr.js';
import type { DType } from '../dtype.js';
import type { Tensor } from '../tensor.js';

/**
 * What lies on a GPU of the tensors that models hold: a model keeps them in host memory, and beside that those that its
 * verbs read on the device where it computes, as long as the tensors themselves live.
 */
const copies = new WeakMap<Tensor, Tensor>();

/** t on `device`, as device() names it: itself on the CPU. @internal */
export function placed<D extends DType>(t: Tensor<D>, device: string): Tensor<D> {
  if (device === 'cpu') return t;
  const known = copies.get(t);
  if (known && !known.disposed && known.device === device) return known as Tensor<D>;
  known?.dispose(); // 'auto' means another GPU now: the one where it lay was lost
  const copy = t.to(device);
  copies.set(t, copy);
  return copy;
}

/** The same for a sparse matrix, as the addon takes it. @internal */
export function placedMatrix({ indptr, indices, values, shape }: CsrMatrix, device: string): CsrHandles {
  const handle = (t: Tensor) => placed(t, device).handle;
  return { indptr: handle(indptr), indices: handle(indices), values: handle(values), cols: shape[1] };
}

/** Frees what lies on a GPU of a part of a model, a tensor or a matrix of them. @internal */
export function disposeCopies(part: unknown): void {
  const { indptr, indices, values } = (part ?? {}) as Partial<CsrMatrix>;
  for (const t of [part, indptr, indices, values]) copies.get(t as Tensor)?.dispose();
}

/** The same, and the part itself. @internal */
export function disposePart(part: unknown): void {
  disposeCopies(part);
  (part as Partial<Disposable> | undefined)?.[Symbol.dispose]?.();
}
