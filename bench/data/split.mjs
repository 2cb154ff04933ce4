// Train and test matrices for evaluation.
import { readFileSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';
import { CsrMatrix } from '../../dist/index.js';
import { loadMatrix } from './csr.mjs';
import { random } from './random.mjs';

/** Train and test of a made matrix: one entry in five of each user, at random, is held out. */
export async function heldOut(shape, data) {
  const { users, items, indptr, indices } = loadMatrix(shape, data);
  const { uniform } = random(7);
  const train = [];
  const test = [];
  for (let user = 0; user < users; ++user) {
    const [kept, held] = [[], []];
    for (const item of indices.subarray(indptr[user], indptr[user + 1])) (uniform() < 0.2 ? held : kept).push(item);
    train.push(kept);
    test.push(held);
  }
  return { train: await fromLists(train, items), test: await fromLists(test, items) };
}

/** Gowalla as published for LightGCN: one line for each user, `user item item ...`. */
export async function publicGowalla(folder) {
  const read = (file) =>
    gunzipSync(readFileSync(`${folder}/gowalla/${file}`))
      .toString()
      .trim()
      .split('\n');
  const lists = (file) => {
    const out = [];
    for (const line of read(file)) {
      const [user, ...rest] = line.trim().split(/\s+/).map(Number);
      out[user] = rest.sort((a, b) => a - b);
    }
    return Array.from(out, (list) => list ?? []);
  };
  const [train, test] = [lists('train.txt.gz'), lists('test.txt.gz')];
  const items = 1 + [...train, ...test].reduce((most, list) => Math.max(most, list.at(-1) ?? 0), 0);
  return { train: await fromLists(train, items), test: await fromLists(test, items) };
}

function fromLists(lists, cols) {
  const indptr = new BigInt64Array(lists.length + 1);
  lists.forEach((list, row) => {
    indptr[row + 1] = indptr[row] + BigInt(list.length);
  });
  const indices = Int32Array.from(lists.flat());
  return CsrMatrix.from({ indptr, indices, values: new Float32Array(indices.length).fill(1), cols });
}
