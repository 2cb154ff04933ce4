// One call of every operation that takes tensors on any device, on small shapes.

import * as topknot from '../../lib/index.js';
import { full, Tensor, tensor } from '../../lib/index.js';
import { native } from '../../lib/native.js';
import type { Handle } from '../../lib/native-ops.js';
import { type Arguments, type Case, definite, draw, drawAs, type Given, made, next, values } from './case.js';
import { modelCases } from './model-cases.js';

export type { Arguments, Case } from './case.js';

// biome-ignore lint/suspicious/noExplicitAny: as above
const named = (name: string) => (topknot as unknown as Record<string, (...args: any[]) => any>)[name]!;

const unaryNames = ['relu', 'gelu', 'sigmoid', 'tanh', 'silu', 'exp'] as const;
const binaryNames = ['add', 'subtract', 'multiply', 'divide'] as const;
const reductions = ['sum', 'mean', 'max'] as const;
const ids = () => tensor([3, 0, 6, 6, 2], { dtype: 'int32' });
const offsets = () => tensor([0, 2, 2, 5], { dtype: 'int64' });
const table = () => draw(7, 12);
const lower = () => {
  const n = 5;
  const data = new Float32Array(2 * n * n);
  for (let b = 0; b < 2; b++)
    for (let i = 0; i < n; i++) for (let j = 0; j <= i; j++) data[(b * n + i) * n + j] = i === j ? 2 + next() : next();
  return tensor(data, { shape: [2, n, n] });
};
const magnitudes = (results: number[][]) => results.map((r) => r.map(Math.abs));
const quantized = () => ({
  'table.data': tensor(
    Int8Array.from({ length: 84 }, (_, i) => ((i * 37) % 256) - 128),
    { shape: [7, 12] },
  ),
  'table.scale': tensor(Float32Array.from({ length: 7 }, next)),
  'table.bias': tensor(Float32Array.from({ length: 7 }, next)),
});
const rowsOf = (a: Given) => ({ data: a['table.data'], scale: a['table.scale'], bias: a['table.bias'] });

const dtypes = ['float32', 'float64', 'float16', 'bfloat16', 'int8', 'uint8', 'int32', 'int64', 'bool'] as const;
export const cases: Case[] = [
  ...modelCases,
  ...dtypes.map((from, i) => ({
    operation: 'cast',
    what: `from ${from}`,
    args: () => ({ tensor: tensor([0, 1, 3, 100, ...(/float/.test(from) ? [0.5, 2.5] : [])], { dtype: from }) }),
    call: ({ tensor: t }: Given) => t.cast(dtypes[(i + 4) % dtypes.length]),
    tolerance: 0,
  })),
  {
    operation: 'sliceRows',
    args: () => ({ tensor: draw(7, 3, 2) }),
    call: ({ tensor: t }) => made(native.sliceRows(t.handle, 2, 6)),
    tolerance: 0,
  },
  {
    operation: 'joinRows',
    args: () => ({ 'the first of them': draw(2, 3), parts: draw(4, 3) }),
    call: (a) => made(native.joinRows([a['the first of them'].handle, a.parts.handle])),
    tolerance: 0,
  },
  ...unaryNames.map((f) => ({
    operation: 'unary',
    what: f,
    args: () => ({ x: draw(5, 7) }),
    call: ({ x }: Given) => named(f)(x),
  })),
  {
    operation: 'unaryBackward',
    args: () => ({ x: draw(5, 7), outGradient: draw(5, 7) }),
    call: ({ x, outGradient }) => topknot.geluBackward(outGradient, x),
  },
  ...binaryNames.map((f) => ({
    operation: 'binary',
    what: f,
    args: () => ({ a: draw(5, 1, 7), b: tensor(values(21).map(Math.abs), { shape: [3, 7] }) }),
    call: ({ a, b }: Given) => named(f)(a, b),
    tolerance: 1e-5,
  })),
  ...binaryNames.map((f) => ({
    operation: 'binaryBackward',
    what: f,
    args: () => ({
      a: draw(5, 1, 7),
      b: tensor(
        values(21).map((x) => 1 + Math.abs(x)),
        { shape: [3, 7] },
      ),
      outGradient: draw(5, 3, 7),
    }),
    call: ({ a, b, outGradient }: Given) => {
      const { a: da, b: db } = named(`${f}Backward`)(outGradient, a, b);
      return [da, db];
    },
  })),
  ...reductions.map((f) => ({
    operation: 'reduce',
    what: f,
    args: () => ({ x: draw(4, 6, 3) }),
    call: ({ x }: Given) => [named(f)(x, { axis: 1 }), named(f)(x)],
  })),
  ...reductions.map((f) => ({
    operation: 'reduceBackward',
    what: f,
    args: () => ({ x: draw(4, 6, 3), outGradient: draw(4, 3) }),
    call: ({ x, outGradient }: Given) => named(`${f}Backward`)(outGradient, x, { axis: 1 }),
  })),
  {
    operation: 'softmax',
    args: () => ({ x: draw(5, 9) }),
    call: ({ x }) => [topknot.softmax(x), topknot.logSoftmax(x)],
  },
  {
    operation: 'softmaxBackward',
    args: () => ({ out: draw(5, 9), outGradient: draw(5, 9) }),
    call: ({ outGradient, out }) => topknot.softmaxBackward(outGradient, out),
  },
  {
    operation: 'layerNorm',
    args: () => ({ x: draw(5, 9), weight: draw(9), bias: draw(9) }),
    call: ({ x, weight, bias }) => topknot.layerNorm(x, { weight, bias }),
  },
  {
    operation: 'layerNormBackward',
    args: () => ({ x: draw(5, 9), weight: draw(9), outGradient: draw(5, 9) }),
    call: ({ outGradient, x, weight }) => {
      const made = topknot.layerNormBackward(outGradient, x, { weight });
      return [made.x, made.weight];
    },
  },
  ...(['float32', 'float16', 'bfloat16'] as const).map((dtype) => ({
    operation: 'matmul',
    what: dtype,
    args: () => ({ a: drawAs(dtype, 2, 9, 17), b: drawAs(dtype, 2, 17, 5) }),
    call: ({ a, b }: Given) => topknot.matmul(a, b),
    tolerance: 1e-5,
  })),
  {
    operation: 'matmul',
    what: 'bias and activation',
    args: () => ({ a: draw(9, 17), b: draw(5, 17), bias: draw(5) }),
    call: ({ a, b, bias }) => topknot.matmul(a, b, { transposeB: true, bias, activation: 'relu' }),
    tolerance: 1e-5,
  },
  {
    operation: 'matmulBackward',
    args: () => ({ a: draw(3, 4, 6), b: draw(6, 5), out: draw(3, 4, 5), outGradient: draw(3, 4, 5) }),
    call: ({ outGradient, a, b, out }) => {
      const made = topknot.matmulBackward(outGradient, a, b, out);
      return [made.a, made.b];
    },
    tolerance: 1e-5,
  },
  {
    operation: 'attention',
    args: () => ({
      q: draw(2, 2, 5, 8),
      k: draw(2, 1, 7, 8),
      v: draw(2, 1, 7, 8),
      keyMask: tensor(
        Uint8Array.from({ length: 14 }, (_, i) => (i % 5 === 0 ? 0 : 1)),
        { shape: [2, 7] },
      ),
      bias: draw(1, 2, 5, 7),
    }),
    call: ({ q, k, v, keyMask, bias }) => {
      const made = topknot.attention(q, k, v, { keyMask, bias, causal: true });
      return [made.out, made.logSumExp];
    },
    tolerance: 1e-5,
  },
  {
    operation: 'attention',
    what: 'packed bfloat16',
    args: () => ({
      q: drawAs('bfloat16', 11, 2, 16),
      k: drawAs('bfloat16', 11, 2, 16),
      v: drawAs('bfloat16', 11, 2, 16),
      queryOffsets: tensor([0, 4, 4, 11], { dtype: 'int32' }),
    }),
    anywhere: ['queryOffsets'],
    call: ({ q, k, v, queryOffsets }) => {
      const made = topknot.attention(q, k, v, { queryOffsets });
      return [made.out, made.logSumExp];
    },
    tolerance: 0.02,
  },
  {
    operation: 'attentionBackward',
    args: () => ({
      q: draw(1, 2, 5, 8),
      k: draw(1, 2, 5, 8),
      v: draw(1, 2, 5, 8),
      out: draw(1, 2, 5, 8),
      logSumExp: draw(1, 2, 5),
      outGradient: draw(1, 2, 5, 8),
    }),
    call: ({ q, k, v, out, logSumExp, outGradient }) => {
      const made = topknot.attentionBackward(outGradient, q, k, v, { out, logSumExp });
      return [made.q, made.k, made.v];
    },
    tolerance: 1e-4,
  },
  ...(['gather', 'gatherRows'] as const).flatMap((operation) => {
    const f = operation === 'gather' ? topknot.gather : topknot.gatherSync;
    return [
      {
        operation,
        args: () => ({ table: table(), ids: ids() }),
        anywhere: ['ids'],
        call: ({ table, ids }: Given) => f(table, ids) as Tensor,
        tolerance: 0,
      },
      {
        operation,
        what: 'int8',
        args: () => ({ ...quantized(), ids: ids() }),
        anywhere: ['ids'],
        call: (a: Given) => f(rowsOf(a), a.ids) as Tensor,
      },
    ];
  }),
  ...(['embeddingBag', 'embeddingBagRows'] as const).flatMap((operation) => {
    const f = operation === 'embeddingBag' ? topknot.embeddingBag : topknot.embeddingBagSync;
    return [
      {
        operation,
        what: 'weighted',
        args: () => ({ table: table(), ids: ids(), offsets: offsets(), weights: draw(5) }),
        anywhere: ['ids', 'offsets', 'weights'],
        call: ({ table, ids, offsets, weights }: Given) => f(table, ids, offsets, { weights: weights as never }),
      },
      {
        operation,
        what: 'mean of int8',
        args: () => ({ ...quantized(), ids: ids(), offsets: offsets() }),
        anywhere: ['ids', 'offsets'],
        call: (a: Given) => f(rowsOf(a), a.ids, a.offsets, { mode: 'mean' }),
      },
    ];
  }),
  ...(['sum', 'mean', 'max'] as const).map((mode) => ({
    operation: 'embeddingBagBackward',
    what: mode,
    args: () => ({ table: table(), gradient: draw(3, 12), ids: ids(), offsets: offsets() }),
    anywhere: ['ids', 'offsets'],
    call: ({ gradient, table, ids, offsets }: Given) => {
      const options = { mode, padding: 2 };
      const weighted = mode === 'sum';
      const made = native.embeddingBagBackwardSync(
        gradient.handle,
        { data: table.handle },
        ids.handle,
        offsets.handle,
        weighted ? { ...options, weights: Float32Array.of(1, 2, 3, 4, 5) as never } : options,
        weighted,
      );
      return [made.rows, made.values, made.weights].map((handle) => handle && new Tensor(handle));
    },
    tolerance: 1e-5,
  })),
  {
    operation: 'embeddingTableCopy',
    args: () => ({ table: table() }),
    call: ({ table }) => new Tensor(native.embeddingTableCopySync(table.handle)),
    tolerance: 0,
  },
  ...(['float32', 'float16', 'bfloat16'] as const).map((dtype) => ({
    operation: 'embeddingTableUpdate',
    what: dtype,
    args: () => ({ table: drawAs(dtype, 7, 12), gradient: draw(5, 12), state: full([7], { value: 0.5 }), ids: ids() }),
    anywhere: ['ids'],
    // What it changes are copies.
    call: ({ table, gradient, state, ids }: Given) => {
      const made: Handle[] = [];
      const rates = { learningRate: 0.1, epsilon: 1e-8, beta1: 0.9, beta2: 0.999, seed: 3, step: 2 };
      const update = { optimizer: 'adagrad', ...rates } as const;
      const bags = { mode: 'sum', padding: -1 } as const;
      try {
        for (const t of [table, state]) made.push(native.embeddingTableCopySync(t.handle));
        const column = ids.reshape([5, 1]);
        native.embeddingTableUpdateSync(
          made[0]!,
          [made[1]!],
          gradient.handle,
          column.handle,
          undefined,
          bags,
          update,
          undefined,
        );
      } catch (error) {
        for (const handle of made) native.dispose(handle);
        throw error;
      }
      return made.map((handle) => new Tensor(handle));
    },
    tolerance: dtype === 'float32' ? 1e-5 : 0.01,
  })),
  {
    operation: 'embeddingQuantize',
    args: () => ({ table: table() }),
    call: ({ table }) => {
      const made = native.embeddingQuantizeSync(table.handle, 8);
      return [made.data, made.scale, made.bias].map((handle) => new Tensor(handle));
    },
    tolerance: 1e-6,
  },
  {
    operation: 'requireFinite',
    args: () => ({ vectors: draw(5, 3) }),
    call: ({ vectors }) => {
      native.requireFiniteSync(vectors.handle);
      return [];
    },
  },
  ...(['innerProduct', 'cosine', 'l2'] as const).flatMap((metric) =>
    (['topkQueued', 'topk'] as const).map((operation) => ({
      operation,
      what: metric,
      args: () => ({ queries: draw(3, 12), items: draw(40, 12) }),
      call: ({ queries, items }: Given) => {
        const f = operation === 'topk' ? topknot.topKSync : topknot.topK;
        const made = f(queries, items, 5, { metric });
        return [made.ids, made.scores];
      },
      toHost: true,
      tolerance: 1e-5,
    })),
  ),
  {
    operation: 'topkQueued',
    what: 'filtered',
    args: () => ({
      queries: draw(2, 12),
      items: draw(70, 12),
      'filter.allowed': tensor(BigInt64Array.of(0x0f0f0f0f0f0f0f0fn, 0x3fn)),
    }),
    host: ['filter.allowed'],
    call: (a) => {
      const made = native.topkQueued(a.queries.handle, a.items.handle, 5, 'innerProduct', {
        allowed: a['filter.allowed'].handle,
      });
      return [new Tensor(made.ids), new Tensor(made.scores)];
    },
    toHost: true,
    tolerance: 1e-5,
  },
  {
    operation: 'selectTopk',
    args: () => ({ scores: draw(3, 20) }),
    call: ({ scores }) => {
      const made = native.selectTopkSync(scores.handle, 4, {});
      return [new Tensor(made.ids), new Tensor(made.scores)];
    },
    toHost: true,
  },
  {
    operation: 'squaredNorms',
    args: () => ({ items: draw(9, 12) }),
    call: ({ items }) => new Tensor(native.squaredNormsSync(items.handle)),
  },
  {
    operation: 'cholesky',
    args: () => ({ a: definite(2, 5) }),
    call: ({ a }) => Object.values(topknot.cholesky(a, { strict: true })),
    tolerance: 1e-5,
  },
  {
    operation: 'choleskySolve',
    args: () => ({ factor: lower(), b: draw(2, 5, 3) }),
    call: ({ factor, b }) => Object.values(topknot.choleskySolve(factor, b)),
    tolerance: 1e-4,
  },
  {
    operation: 'solvePositiveDefinite',
    args: () => ({ a: definite(2, 5), b: draw(2, 5) }),
    call: ({ a, b }) => Object.values(topknot.solvePositiveDefinite(a, b)),
    tolerance: 1e-4,
  },
  {
    operation: 'luSolve',
    args: () => ({ a: definite(2, 5), b: draw(2, 5, 2) }),
    call: ({ a, b }) => Object.values(topknot.luSolve(a, b)),
    tolerance: 1e-4,
  },
  {
    operation: 'qr',
    args: () => ({ a: draw(2, 6, 4) }),
    call: ({ a }) => Object.values(topknot.qr(a)),
    unique: magnitudes,
    tolerance: 1e-5,
  },
  {
    operation: 'eigh',
    args: () => ({ a: definite(2, 5) }),
    call: ({ a }) => Object.values(topknot.eigh(a)),
    unique: magnitudes,
    tolerance: 1e-4,
  },
  {
    operation: 'svd',
    args: () => ({ a: draw(2, 6, 4) }),
    call: ({ a }) => Object.values(topknot.svd(a)),
    unique: magnitudes,
    tolerance: 1e-4,
  },
];

export const nameOf = (one: Case): string => (one.what ? `${one.operation}: ${one.what}` : one.operation);

/** The arguments of a call on a device, but for those named in `others`. */
export function placed(one: Case, args: Arguments, device: string, others: Record<string, string> = {}): Arguments {
  const deviceOf = (name: string) => others[name] ?? (one.host?.includes(name) ? 'cpu' : device);
  return Object.fromEntries(Object.entries(args).map(([name, t]) => [name, t.to(deviceOf(name))]));
}

/** The results of a call, as a list. */
export function resultsOf(one: Case, args: Arguments): Tensor[] {
  const made = one.call(args);
  return (made instanceof Tensor ? [made] : made).filter((t) => t !== undefined) as Tensor[];
}

export async function valuesOf(results: readonly Tensor[]): Promise<number[][]> {
  // All of them are waited for, so that nothing is in flight behind an error.
  const read = await Promise.allSettled(results.map(async (t) => Array.from(await t.data(), Number)));
  return read.map((one) => {
    if (one.status === 'rejected') throw one.reason;
    return one.value;
  });
}
