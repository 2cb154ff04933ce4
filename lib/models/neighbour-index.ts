import { type CsrHandles, CsrMatrix } from '../csr.js';
import { type JobOptions, runJob } from '../job.js';
import { native } from '../native.js';
import { Tensor } from '../tensor.js';
import type { NeighbourOptions } from './neighbour-options.js';
import { disposePart, placed, placedMatrix } from './placed.js';

type Made = Awaited<ReturnType<typeof native.neighbourIndex>>;

/** What finds the nearest of some rows. @internal */
export interface NeighbourIndex {
  readonly terms: CsrMatrix;
  readonly norms: Tensor<'float32'>;
  readonly idf: Tensor<'float64'>;
  readonly meanLength: number;
}

/** @internal */
export async function neighbourIndex(
  rows: CsrHandles,
  options: Required<NeighbourOptions>,
  job: JobOptions,
): Promise<NeighbourIndex> {
  const { terms, norms, idf, meanLength } = await runJob('long', job, (control) =>
    native.neighbourIndex(control, rows, options),
  );
  return { terms: new CsrMatrix(terms), norms: new Tensor(norms), idf: new Tensor(idf), meanLength };
}

/** The index as the addon takes it, where the model computes. @internal */
export const indexOn = ({ terms, norms, idf, meanLength }: NeighbourIndex, device: string): Made => ({
  terms: placedMatrix(terms, device),
  norms: placed(norms, device).handle,
  idf: idf.handle,
  meanLength,
});

/** @internal */
export function disposeIndex({ terms, norms, idf }: NeighbourIndex): void {
  for (const part of [terms, norms, idf]) disposePart(part);
}
