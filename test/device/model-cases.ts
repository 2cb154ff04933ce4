// The operations that models and their evaluation are made of.

import { Tensor, tensor } from '../../lib/index.js';
import { native } from '../../lib/native.js';
import type { Handle } from '../../lib/native-ops.js';
import { type Arguments, type Case, definite, draw, type Given, made, values } from './case.js';

const ids = () => tensor([3, 0, 6, 6, 2], { dtype: 'int32' });
/** Rows 0: 1 and 3, 1: none, 2: 0, 1 and 2. */
const sparse = (name: string) => ({
  [`${name}.indptr`]: tensor([0, 2, 2, 5], { dtype: 'int64' }),
  [`${name}.indices`]: tensor([1, 3, 0, 1, 2], { dtype: 'int32' }),
  [`${name}.values`]: tensor([1, 2, 0.5, 1, 3]),
});
const hosted = (name: string) => [`${name}.indptr`, `${name}.indices`, `${name}.values`];
const csrOf = (a: Given, name: string, cols: number) => {
  const [indptr, indices, values] = hosted(name).map((part) => a[part].handle as Handle);
  return { indptr: indptr!, indices: indices!, values: values!, cols };
};
/** The values say where the matrix is to be. */
const withValuesFirst = (parts: Arguments) => Object.fromEntries(Object.entries(parts).reverse());
/** The same with ids below `cols`. */
const withColumns = (parts: Arguments, cols: number): Arguments =>
  Object.fromEntries(
    Object.entries(parts).map(([name, t]) => [
      name,
      name.endsWith('indices') && cols === 3 ? tensor([0, 2, 0, 1, 2], { dtype: 'int32' }) : t,
    ]),
  );
const found = ({ ids, scores }: { ids: unknown; scores: unknown }) => [
  tensor(ids as Int32Array),
  tensor(scores as Float32Array),
];
const als = {
  factors: 4,
  solver: 'cg',
  cgSteps: 2,
  blockSize: 4,
  objective: 'ials',
  unobservedWeight: 0.2,
  alpha: 2,
  regularization: 0.1,
  regularizationForm: 'perEntry',
  regularizationExponent: 1,
  iterations: 1,
  seed: 1,
  initStd: 0.1,
  computeLoss: false,
  device: 'cpu',
  deviceBytes: 0,
} as const;
const nmf = {
  factors: 5,
  over: 'all',
  regularization: 0.1,
  perEntry: false,
  iterations: 1,
  seed: 1,
  computeLoss: false,
  deviceBytes: 0,
} as const;
const nearest = { neighbours: 2, similarity: 'cosine', shrinkage: 1, asymmetry: 0.5, k1: 1.2, b: 0.75 } as const;

export const modelCases: Case[] = [
  {
    operation: 'takeRows',
    args: () => ({ matrix: draw(7, 12), rows: ids() }),
    host: ['rows'],
    call: ({ matrix, rows }) => made(native.takeRowsSync(matrix.handle, rows.handle)),
    tolerance: 0,
  },
  {
    operation: 'search',
    args: () => ({ items: draw(40, 12), queries: draw(30, 12), rows: ids(), ...sparse('filter.seen') }),
    host: ['rows', ...hosted('filter.seen')],
    call: (a) => {
      const seen = csrOf(a, 'filter.seen', 40);
      const seenRows = Int32Array.of(2, 0, 1, 2, 0) as never;
      const { queries, rows, items } = a;
      const filter = { seen, seenRows };
      return found(native.searchSync(queries.handle, rows.handle, items.handle, undefined, 4, 'innerProduct', filter));
    },
    toHost: true,
    tolerance: 1e-5,
  },
  {
    operation: 'search',
    what: 'for a vector',
    args: () => {
      const items = draw(40, 12);
      return { items, queries: draw(1, 12), itemNorms: new Tensor(native.squaredNormsSync(items.handle)) };
    },
    anywhere: ['queries'],
    call: ({ queries, items, itemNorms }) =>
      found(native.searchSync(queries.handle, undefined, items.handle, itemNorms.handle, 4, 'cosine', {})),
    toHost: true,
    tolerance: 1e-5,
  },
  {
    operation: 'rankCounts',
    args: () => ({ items: draw(40, 12), queries: draw(3, 12), ...sparse('positives') }),
    host: hosted('positives'),
    call: (a) => {
      const positives = csrOf(a, 'positives', 40);
      const counts = native.rankCountsSync(a.queries.handle, a.items.handle, positives, {
        seen: positives,
        seenRows: Int32Array.of(1, 2, 0) as never,
      });
      return made(counts.above, counts.equal);
    },
    toHost: true,
    tolerance: 0,
  },
  {
    operation: 'pairScores',
    args: () => ({ items: draw(7, 12), users: draw(9, 12), userIds: ids(), itemIds: ids() }),
    host: ['userIds', 'itemIds'],
    call: ({ users, items, userIds, itemIds }) =>
      made(native.pairScoresSync(users.handle, items.handle, userIds.handle, itemIds.handle)),
    toHost: true,
  },
  ...(['dense', 'sparse'] as const).flatMap((kind) => {
    const weights = (): Arguments =>
      kind === 'dense' ? { 'weights.dense': draw(4, 4) } : withValuesFirst(sparse('weights.sparse'));
    const weightsOf = (a: Given) =>
      kind === 'dense' ? { dense: a['weights.dense'].handle } : { sparse: csrOf(a, 'weights.sparse', 4) };
    const columns = kind === 'dense' ? 4 : 3;
    const args = () => ({
      ...weights(),
      ...withColumns(sparse('queries'), columns),
      rows: tensor([2, 0, 2], { dtype: 'int32' }),
    });
    const host = ['rows', ...hosted('queries')];
    return [
      {
        operation: 'linearScores',
        what: kind,
        args,
        host,
        call: (a: Given) => made(native.linearScoresSync(csrOf(a, 'queries', columns), a.rows.handle, weightsOf(a))),
      },
      {
        operation: 'linearSearch',
        what: kind,
        args: () => ({ ...args(), 'filter.seenRows': tensor([1, 0, 2], { dtype: 'int32' }), ...sparse('filter.seen') }),
        host: [...host, 'filter.seenRows', ...hosted('filter.seen')],
        call: (a: Given) =>
          found(
            native.linearSearchSync(csrOf(a, 'queries', columns), a.rows.handle, weightsOf(a), 2, {
              seen: csrOf(a, 'filter.seen', 4),
              seenRows: a['filter.seenRows'].handle,
            }),
          ),
        toHost: true,
      },
    ];
  }),
  {
    operation: 'neighbours',
    args: () => ({
      ...withValuesFirst(sparse('index.terms')),
      'index.norms': tensor([1, 2, 1.5, 1]),
      'index.idf': tensor([1, 2, 1], { dtype: 'float64' }),
      ...withColumns(sparse('rows'), 3),
    }),
    host: ['index.idf', ...hosted('rows')],
    call: (a) => {
      const index = { terms: csrOf(a, 'index.terms', 4), norms: a['index.norms'].handle, idf: a['index.idf'].handle };
      const lists = native.neighboursSync(csrOf(a, 'rows', 3), { ...index, meanLength: 2 }, false, nearest);
      return made(lists.indptr, lists.indices, lists.values);
    },
    toHost: true,
    tolerance: 1e-6,
  },
  ...(['cg', 'cholesky'] as const).map((solver) => ({
    operation: 'alsSolve',
    what: solver,
    args: () => ({ fixed: draw(4, 5), ...sparse('rows'), start: draw(3, 5), gram: definite(1, 5).reshape([5, 5]) }),
    host: ['start', ...hosted('rows')],
    call: (a: Given) => {
      const options = { ...als, solver };
      return made(native.alsSolveSync(csrOf(a, 'rows', 4), a.fixed.handle, a.gram.handle, a.start.handle, options));
    },
    tolerance: 1e-4,
  })),
  {
    operation: 'alsSolve',
    what: 'with its own Gram matrix',
    args: () => ({ fixed: draw(4, 5), ...sparse('rows') }),
    host: hosted('rows'),
    call: (a) => made(native.alsSolveSync(csrOf(a, 'rows', 4), a.fixed.handle, undefined, undefined, als)),
    tolerance: 1e-4,
  },
  {
    operation: 'alsGram',
    args: () => ({ factors: draw(9, 5) }),
    call: ({ factors }) => made(native.alsGramSync(factors.handle)),
    tolerance: 1e-5,
  },
  ...(['frobenius', 'kl'] as const).map((objective) => ({
    operation: 'nmfFold',
    what: objective,
    args: () => ({ fixed: tensor(values(20).map(Math.abs), { shape: [4, 5] }), ...sparse('rows') }),
    host: hosted('rows'),
    call: (a: Given) => made(native.nmfFoldSync(csrOf(a, 'rows', 4), a.fixed.handle, { ...nmf, objective })),
    tolerance: 1e-3,
  })),
  {
    operation: 'spmm',
    args: () => ({ dense: draw(4, 5), ...sparse('matrix') }),
    host: hosted('matrix'),
    call: (a) => made(native.spmmSync(csrOf(a, 'matrix', 4), a.dense.handle)),
  },
  ...(['users', 'items'] as const).map((side) => ({
    operation: 'ratingSolve',
    what: side,
    args: () => ({ fixed: draw(4, 5), ...sparse('rows') }),
    host: hosted('rows'),
    call: (a: Given) => made(native.ratingSolveSync(csrOf(a, 'rows', 4), a.fixed.handle, side, 3.5, 0.1)),
    tolerance: 1e-4,
  })),
];
