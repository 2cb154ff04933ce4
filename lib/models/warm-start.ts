import type { Id, Ids } from '../data/ids.js';
import { type JobOptions, runJob } from '../job.js';
import { native } from '../native.js';
import type { Handle } from '../native-ops.js';
import { inSlices } from '../slices.js';
import { full, type Tensor } from '../tensor.js';

/** Options of `fit` of models that can go on from where the last fit ended. */
export interface FitOptions extends JobOptions {
  /**
   * Starts from the last fit: what it knew keeps its vector and bias, by id. What is new starts at zero, in BPR, LogisticMF and
   * NMF at random.
   */
  warmStart?: boolean | undefined;
}

/** The rows that `from` has for `ids`, zeros for those that are not among the `known`. @internal */
export async function gatherRows<T extends Id>(
  known: Ids<T>,
  from: Tensor<'float32'>,
  ids: Ids<T>,
  signal: AbortSignal | undefined,
): Promise<Handle> {
  await known.ready();
  const at: number[] = [];
  const rows: number[] = [];
  const visit = (begin: number, end: number) => {
    for (let i = begin; i < end; i++) {
      const row = known.indexOf(ids.at(i));
      if (row < 0) continue;
      at.push(i);
      rows.push(row);
    }
  };
  await inSlices(ids.size, visit, signal);
  return runJob('long', { signal }, async (control) => {
    const found = await native.takeRows(control, from.handle, Int32Array.from(rows));
    const empty = full([0, from.shape[1]!]).handle;
    return native.replaceRows(control, empty, ids.size, Int32Array.from(at), found);
  });
}
