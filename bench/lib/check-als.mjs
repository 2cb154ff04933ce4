// Checks one half-sweep of ALS against float64, for a few rows.

/**
 * Throws unless, for rows of the item side, `after` solves the normal equations over the users' factors (Cholesky), or is
 * what conjugate gradients make of `before` (cg). Weights are alpha for every entry; the objective is Hu, Koren and
 * Volinsky's: A = G + Σ alpha x xᵀ + λ I, b = Σ (1 + alpha) x.
 */
export async function checkHalfSweep({ cols, options }, solver, users, before, after) {
  const f = options.factors;
  const [indptr, indices] = [await cols.indptr.data(), await cols.indices.data()];
  const [x, start, found] = [await users.data(), await before.data(), await after.data()];
  const gram = gramOf(x, f);
  const count = cols.shape[0];
  const sample = [0, 1, 2, 3, 4, 5, 6, 7].map((i) => Math.floor((i * (count - 1)) / 7));
  for (const row of sample) {
    const entries = indices.subarray(Number(indptr[row]), Number(indptr[row + 1]));
    if (entries.length === 0) continue;
    const times = (v) => product({ gram, x, entries, options }, v);
    const b = new Float64Array(f);
    for (const u of entries) for (let j = 0; j < f; ++j) b[j] += (1 + options.alpha) * x[u * f + j];
    const got = Float64Array.from(found.subarray(row * f, (row + 1) * f));
    if (solver === 'cholesky') {
      const residual = norm(minus(b, times(got))) / norm(b);
      if (!(residual < 1e-4)) throw new Error(`als: item ${row} leaves a residual of ${residual}`);
    } else {
      const exact = conjugateGradients(
        times,
        b,
        Float64Array.from(start.subarray(row * f, (row + 1) * f)),
        options.cgSteps,
      );
      const error = norm(minus(exact, got)) / norm(exact);
      if (!(error < 1e-3)) throw new Error(`als: item ${row} differs from float64 conjugate gradients by ${error}`);
    }
  }
}

function gramOf(x, f) {
  const gram = new Float64Array(f * f);
  for (let at = 0; at < x.length; at += f)
    for (let i = 0; i < f; ++i) for (let j = 0; j < f; ++j) gram[i * f + j] += x[at + i] * x[at + j];
  return gram;
}

/** A v */
function product({ gram, x, entries, options }, v) {
  const f = v.length;
  const out = Float64Array.from(v, (value) => options.regularization * value);
  for (let i = 0; i < f; ++i) for (let j = 0; j < f; ++j) out[i] += gram[i * f + j] * v[j];
  for (const u of entries) {
    let dot = 0;
    for (let j = 0; j < f; ++j) dot += x[u * f + j] * v[j];
    for (let j = 0; j < f; ++j) out[j] += options.alpha * dot * x[u * f + j];
  }
  return out;
}

function conjugateGradients(times, b, start, steps) {
  const x = start;
  const r = minus(b, times(x));
  let p = r.slice();
  for (let step = 0; step < steps; ++step) {
    const ap = times(p);
    const before = inner(r, r);
    const alpha = before / inner(p, ap);
    p.forEach((value, j) => {
      x[j] += alpha * value;
      r[j] -= alpha * ap[j];
    });
    const beta = inner(r, r) / before;
    p = p.map((value, j) => r[j] + beta * value);
  }
  return x;
}

const inner = (a, b) => a.reduce((sum, value, j) => sum + value * b[j], 0);
const minus = (a, b) => a.map((value, j) => value - b[j]);
const norm = (a) => Math.sqrt(inner(a, a));
