// What the cases of operations are made of.

import { type DType, Tensor, tensor } from '../../lib/index.js';
import type { Handle } from '../../lib/native-ops.js';
import { numbers } from '../models/suite.js';

export type Arguments = Record<string, Tensor>;

export interface Case {
  /** The row of native/ops/ops.def. */
  operation: string;
  /** What is special about this call. */
  what?: string;
  /** By the names that messages give them; the first one says where the call runs. */
  args: () => Arguments;
  /** Of args that may be on any device, because they are checked on the host. */
  anywhere?: readonly string[];
  /** Of args that must stay on the CPU. */
  host?: readonly string[];
  call: (args: Given) => Result;
  /** Results come to the host, because they are read at once. */
  toHost?: boolean;
  /** Results that are not unique, made into what is: eigenvectors of either sign. */
  unique?: (results: number[][]) => number[][];
  /** Relative to the largest element of the result. */
  tolerance?: number;
}
// biome-ignore lint/suspicious/noExplicitAny: the operations themselves check what they are given
export type Given = Record<string, any>;
export type Result = Tensor | readonly (Tensor | undefined)[];

export const next = numbers(7);
export const values = (count: number) => Float32Array.from({ length: count }, () => next() + next() + next() - 1.5);
export const draw = (...shape: number[]) => tensor(values(shape.reduce((n, d) => n * d, 1)), { shape });
export const drawAs = (dtype: DType, ...shape: number[]) => draw(...shape).cast(dtype);

/** Matrices [batch, n, n] that are symmetric and positive definite. */
export function definite(batch: number, n: number): Tensor {
  const out = new Float32Array(batch * n * n);
  for (let b = 0; b < batch; b++) {
    const a = values(n * n);
    for (let i = 0; i < n; i++)
      for (let j = 0; j < n; j++) {
        let sum = i === j ? 1 : 0;
        for (let k = 0; k < n; k++) sum += a[i * n + k]! * a[j * n + k]!;
        out[(b * n + i) * n + j] = sum;
      }
  }
  return tensor(out, { shape: [batch, n, n] });
}

/** What the addon has made. */
export const made = (...handles: Handle[]) => handles.map((handle) => new Tensor(handle));
