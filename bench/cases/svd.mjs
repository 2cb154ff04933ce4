// The sparse product that block iterations are made of, and the truncated singular values that they find, on a matrix
// shaped like Gowalla.
import { CsrMatrix, tensor, truncatedSvd } from '../../dist/index.js';
import { native } from '../../dist/native.js';
import { loadMatrix } from '../data/csr.mjs';
import { gaussians } from '../data/random.mjs';
import { openScipy } from '../peers/scipy.mjs';

export const name = 'svd';

const size = (shape, what, k, quick = false) => ({ label: `${shape} ${what} ${k}`, shape, what, k, quick });

// The spectrum of made data is flat, unlike that of real data, so values are sought on the small one only.
export const sizes = [size('gowalla', 'spmm', 64), ...['spmm', 'svd'].map((what) => size('tiny', what, 16, true))];

/** Of one product; how many a decomposition takes depends on the spectrum. */
export const flops = ({ what, k }, { nnz }) => (what === 'spmm' ? 2 * nnz * k : undefined);
export const bytes = ({ what, k }, { nnz, users, items }) =>
  what === 'spmm' ? 8 * nnz + 4 * k * (users + items) : undefined;

export async function setup({ shape, k }, context) {
  const { folder, users, items, indptr, indices } = loadMatrix(shape, context.data);
  const values = new Float32Array(indices.length).fill(1);
  const matrix = await CsrMatrix.from({ indptr: BigInt64Array.from(indptr, BigInt), indices, values, cols: items });
  const dense = gaussians(items * k, 1);
  return {
    folder,
    users,
    items,
    indptr,
    indices,
    nnz: indices.length,
    matrix,
    dense: tensor(dense, { shape: [items, k] }),
  };
}

export async function run(state, { what, k }) {
  if (what === 'spmm') native.dispose(await product(state));
  else for (const part of Object.values(await truncatedSvd(state.matrix, k))) part.dispose?.();
}

const product = ({ matrix, dense }) => native.spmm(undefined, matrix.handles, dense.handle);

export async function verify(state, { what, k }) {
  const { indptr, indices, users } = state;
  const times = (x, row) => {
    const out = new Float64Array(k);
    for (let e = indptr[row]; e < indptr[row + 1]; ++e) for (let c = 0; c < k; ++c) out[c] += x[indices[e] * k + c];
    return out;
  };
  const near = (got, exact, size, where) => {
    if (!(Math.abs(got - exact) <= 2e-5 * size)) throw new Error(`${where}: ${got} instead of ${exact}`);
  };
  const svd = what === 'svd' && (await truncatedSvd(state.matrix, k));
  const x = svd ? svd.v.dataSync() : state.dense.dataSync();
  const out = svd ? svd.u.dataSync() : native.readSync(await product(state));
  const s = svd ? svd.s.dataSync() : undefined;
  for (let row = 0; row < users; row += 97) {
    const exact = times(x, row);
    // A v = σ u, against the largest σ; the product, against the terms of a sum.
    const size = s ? s[0] : 4 * Math.sqrt(indptr[row + 1] - indptr[row]) + 1;
    for (let c = 0; c < k; ++c) near(out[row * k + c] * (s ? s[c] : 1), exact[c], size, `row ${row}, column ${c}`);
  }
}

export async function peers(state, { what, k }, { threads }) {
  const { version, run, values, close } = await openScipy({ folder: state.folder, what, k, threads });
  if (what === 'svd') {
    const theirs = await values();
    for (const [j, mine] of (await truncatedSvd(state.matrix, k)).s.dataSync().entries())
      if (!(Math.abs(mine - theirs[j]) <= 1e-5 * theirs[0]))
        throw new Error(`σ ${j}: ${mine} here, ${theirs[j]} in scipy`);
  }
  return [{ name: `scipy ${version}`, run, close }];
}

export function teardown({ matrix, dense }) {
  matrix.dispose();
  dense.dispose();
}
