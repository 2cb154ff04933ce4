// Sparse matrices shaped like public data sets: how many users, items and entries, log-normal user activity, power-law
// item popularity. Kept as raw files, so that peers in other languages read the same matrix.
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { permutation, random } from './random.mjs';

export const shapes = {
  //        size of the public set                              log-normal, clipped          p(rank) ~ (rank + shift)^-exponent
  gowalla: {
    users: 29_858,
    items: 40_981,
    nnz: 1_027_370,
    sigma: 0.85,
    least: 8,
    most: 1_500,
    shift: 50,
    exponent: 0.85,
  },
  ml20m: {
    users: 138_493,
    items: 26_744,
    nnz: 20_000_263,
    sigma: 1.22,
    least: 20,
    most: 9_000,
    shift: 30,
    exponent: 1.15,
  },
  // Parts of ml20m with as many ratings a user: how the cost grows with the data.
  ml5m: {
    users: 34_623,
    items: 26_744,
    nnz: 5_000_065,
    sigma: 1.22,
    least: 20,
    most: 9_000,
    shift: 30,
    exponent: 1.15,
  },
  ml10m: {
    users: 69_246,
    items: 26_744,
    nnz: 10_000_131,
    sigma: 1.22,
    least: 20,
    most: 9_000,
    shift: 30,
    exponent: 1.15,
  },
  tiny: { users: 600, items: 500, nnz: 12_000, sigma: 0.85, least: 4, most: 200, shift: 20, exponent: 0.85 },
};

const cache = fileURLToPath(new URL('../.cache/', import.meta.url));

/**
 * `{ folder, users, items, indptr: Int32Array, indices: Int32Array }` of `DATA/NAME` where that exists, or of a matrix of
 * that shape which is made once and kept under bench/.cache. All values are 1.
 */
export function loadMatrix(name, data) {
  const given = data && existsSync(`${data}/${name}/meta.json`);
  const folder = given ? `${data}/${name}` : `${cache}${name}`;
  if (!given) makeOnce(name, folder);
  const { users, items } = JSON.parse(readFileSync(`${folder}/meta.json`, 'utf8'));
  const read = (file) => {
    const bytes = readFileSync(`${folder}/${file}`);
    return new Int32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength));
  };
  return { folder, users, items, indptr: read('indptr.i32'), indices: read('indices.i32') };
}

function makeOnce(name, folder) {
  try {
    readFileSync(`${folder}/meta.json`);
    return;
  } catch {
    // not made yet
  }
  const shape = shapes[name];
  const { indptr, indices } = generate(shape, 42);
  const partial = `${folder}.${process.pid}`;
  mkdirSync(partial, { recursive: true });
  writeFileSync(`${partial}/indptr.i32`, indptr);
  writeFileSync(`${partial}/indices.i32`, indices);
  writeFileSync(
    `${partial}/meta.json`,
    JSON.stringify({ users: shape.users, items: shape.items, nnz: shape.nnz, seed: 42 }),
  );
  renameSync(partial, folder);
}

export function generate(shape, seed) {
  const indptr = new Int32Array(shape.users + 1);
  degrees(shape, seed).forEach((n, user) => {
    indptr[user + 1] = indptr[user] + n;
  });
  return { indptr, indices: choices(shape, indptr, seed + 1) };
}

/** Entries of each user: log-normal, scaled and clipped so that they add up to nnz. */
function degrees({ users, nnz, sigma, least, most }, seed) {
  const { uniform } = random(seed);
  const raw = Float64Array.from({ length: users }, () => {
    const normal = Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());
    return Math.exp(sigma * normal);
  });
  const clip = (x) => Math.min(Math.max(x, least), most);
  const total = (scale) => raw.reduce((sum, x) => sum + clip(x * scale), 0);
  let low = 0,
    high = nnz;
  for (let i = 0; i < 100; ++i) {
    const middle = (low + high) / 2;
    if (total(middle) < nnz) low = middle;
    else high = middle;
  }
  const out = Int32Array.from(raw, (x) => Math.floor(clip(x * high)));
  let missing = nnz - out.reduce((sum, n) => sum + n, 0);
  for (let user = 0; missing !== 0; user = (user + 1) % users) {
    const step = Math.sign(missing);
    if (out[user] + step < least || out[user] + step > most) continue;
    out[user] += step;
    missing -= step;
  }
  return out;
}

/** Distinct items for every user, drawn by popularity, rising within a row. */
function choices({ users, items, shift, exponent }, indptr, seed) {
  const itemOfRank = permutation(items, seed);
  const cumulative = new Float64Array(items);
  let sum = 0;
  for (let rank = 0; rank < items; ++rank) cumulative[rank] = sum += (rank + shift) ** -exponent;
  const draw = guidedSearch(cumulative);
  const indices = new Int32Array(indptr[users]);
  const takenBy = new Int32Array(items).fill(-1);
  const { uniform } = random(seed + 1);
  for (let user = 0; user < users; ++user) {
    for (let at = indptr[user]; at < indptr[user + 1]; ) {
      const rank = draw(uniform() * sum);
      if (takenBy[rank] === user) continue;
      takenBy[rank] = user;
      indices[at++] = itemOfRank[rank];
    }
    indices.subarray(indptr[user], indptr[user + 1]).sort();
  }
  return indices;
}

/** A function that finds the first index whose cumulative value exceeds x, starting from a table of close guesses. */
function guidedSearch(cumulative) {
  const total = cumulative.at(-1);
  const guide = new Int32Array(4 * cumulative.length);
  for (let g = 0, i = 0; g < guide.length; ++g) {
    while (cumulative[i] <= (g / guide.length) * total) ++i;
    guide[g] = i;
  }
  return (x) => {
    let i = guide[Math.floor((x / total) * guide.length)];
    while (cumulative[i] <= x) ++i;
    return i;
  };
}
