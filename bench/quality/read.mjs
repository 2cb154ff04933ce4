// The formats of the public data sets, as typed arrays of row numbers. What they are: the READMEs beside the data.
import { readFileSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';
import { random } from '../data/random.mjs';

const lines = (path) => gunzipSync(readFileSync(path)).toString('utf8').split('\n').filter(Boolean);

/** `{ users, items }` of (user, item) pairs; as they are read. */
class Pairs {
  #users = [];
  #items = [];

  add(user, item) {
    this.#users.push(user);
    this.#items.push(item);
  }

  done() {
    return { users: Int32Array.from(this.#users), items: Int32Array.from(this.#items) };
  }
}

/** Lines of `user item item ...`. */
export function adjacency(path) {
  const pairs = new Pairs();
  for (const line of lines(path)) {
    const [user, ...items] = line.split(' ').map(Number);
    for (const item of items) pairs.add(user, item);
  }
  return pairs.done();
}

/** Lines of `user<TAB>item...`; what follows is ignored. */
export function columns(path) {
  const pairs = new Pairs();
  for (const line of lines(path)) {
    const [user, item] = line.split('\t');
    pairs.add(Number(user), Number(item));
  }
  return pairs.done();
}

/** Lines of `(user,item)<TAB>negative<TAB>negative...`: the negatives. */
export function negatives(path) {
  const pairs = new Pairs();
  for (const line of lines(path)) {
    const [key, ...items] = line.split('\t');
    const user = Number(key.slice(1, key.indexOf(',')));
    for (const item of items) pairs.add(user, Number(item));
  }
  return pairs.done();
}

/**
 * Lines of `user item item ...` in time order, ids from 1, one or more lines for each user: the last item of each is
 * test, the rest train.
 */
export function leaveLastOut(path) {
  const histories = new Map();
  for (const line of lines(path)) {
    const [user, ...items] = line.split(' ').map((id) => Number(id) - 1);
    histories.get(user)?.push(...items) ?? histories.set(user, items);
  }
  const [train, test] = [new Pairs(), new Pairs()];
  for (const [user, items] of histories)
    for (const [i, item] of items.entries()) (i < items.length - 1 ? train : test).add(user, item);
  return { train: train.done(), test: test.done() };
}

/**
 * Lines of `user,item,rating...`, or another separator; those that do not begin with a digit are passed over. A fifth, drawn
 * at random, is test. `values` says whether the ratings come along or all are 1.
 */
export function fifthHeldOut(path, separator, { values }) {
  const { uniform } = random(1);
  const rowOf = (rows, id) => rows.get(id) ?? rows.set(id, rows.size).get(id);
  const [users, items] = [new Map(), new Map()];
  const parts = { train: [], test: [] };
  for (const line of lines(path).filter((line) => /^\d/.test(line))) {
    const [user, item, rating] = line.split(separator);
    parts[uniform() < 0.2 ? 'test' : 'train'].push([rowOf(users, user), rowOf(items, item), Number(rating)]);
  }
  const columns = (rows) => ({
    users: Int32Array.from(rows, (row) => row[0]),
    items: Int32Array.from(rows, (row) => row[1]),
    ...(values && { values: Float32Array.from(rows, (row) => row[2]) }),
  });
  return { train: columns(parts.train), test: columns(parts.test) };
}

/** Lines of `user<TAB>item<TAB>rating<TAB>time<TAB>fold`, ids and folds from 1: for each fold, it is test and the rest train. */
export function ratingFolds(path) {
  const rows = lines(path).map((line) => line.split('\t').map(Number));
  const take = (wanted) => {
    const kept = rows.filter((row) => wanted(row[4]));
    const column = (Type, value) => Type.from(kept, value);
    return {
      users: column(Int32Array, ([user]) => user - 1),
      items: column(Int32Array, ([, item]) => item - 1),
      values: column(Float32Array, ([, , rating]) => rating),
    };
  };
  const folds = [...new Set(rows.map((row) => row[4]))].sort();
  return folds.map((fold) => ({ train: take((f) => f !== fold), test: take((f) => f === fold) }));
}
