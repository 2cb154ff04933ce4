// Rating prediction in float64 that reads like the formulas: r̂_ui = μ + b_u + b_i + p_u·q_i.

import { eliminate } from './als.js';
import { below, shuffled } from './philox.js';

export type Rating = readonly [user: number, item: number, rating: number];

/** The parameters, one object for each user and item. */
export interface Side {
  vector: number[];
  bias: number;
}
export interface Parameters {
  mean: number;
  users: Side[];
  items: Side[];
}

const dot = (a: readonly number[], b: readonly number[]): number => a.reduce((sum, x, k) => sum + x * b[k]!, 0);

export const predict = ({ mean, users, items }: Parameters, u: number, i: number): number =>
  mean + users[u]!.bias + items[i]!.bias + dot(users[u]!.vector, items[i]!.vector);

export function objective(p: Parameters, ratings: readonly Rating[], regularization: number): number {
  let sum = 0;
  for (const [u, i, r] of ratings) {
    sum += (r - predict(p, u, i)) ** 2;
    for (const { vector, bias } of [p.users[u]!, p.items[i]!])
      sum += regularization * (dot(vector, vector) + bias ** 2);
  }
  return sum;
}

/** One epoch of stochastic gradient descent over the ratings in their order, in place. Koren, Bell, Volinsky 2009. */
export function sgdEpoch(p: Parameters, ratings: readonly Rating[], rate: number, regularization: number): void {
  for (const [u, i, r] of ratings) {
    const error = r - predict(p, u, i);
    const [user, item] = [p.users[u]!, p.items[i]!];
    user.bias += rate * (error - regularization * user.bias);
    item.bias += rate * (error - regularization * item.bias);
    user.vector.forEach((pk, k) => {
      const qk = item.vector[k]!;
      user.vector[k] = pk + rate * (error * qk - regularization * pk);
      item.vector[k] = qk + rate * (error * pk - regularization * qk);
    });
  }
}

/**
 * The order in which an epoch visits fewer than 32,768 ratings, given by user and, within a user, by item: shuffled by
 * Fisher and Yates, keyed by (seed, epoch), on top of the order of the epoch before.
 */
export function visitingOrder(ratings: readonly Rating[], seed: number, epochs: number): Rating[] {
  let order = [...ratings];
  for (let epoch = 0; epoch < epochs; epoch++)
    order = shuffled(order, below(BigInt(seed), (3n << 56n) + BigInt(epoch) * 8192n));
  return order;
}

/**
 * Vector and bias of one row that minimise Σ (r - r̂)² + n λ (|vector|² + bias²) over its n ratings, given as (row of the
 * other side, rating less the mean): the normal equations.
 */
export function solveRatings(own: readonly (readonly [number, number])[], other: Side[], regularization: number): Side {
  const f = other[0]!.vector.length + 1;
  if (own.length === 0) return { vector: new Array(f - 1).fill(0), bias: 0 };
  const a = Array.from({ length: f }, (_, r) =>
    Array.from({ length: f }, (_, c) => (r === c ? own.length * regularization : 0)),
  );
  const b: number[] = new Array(f).fill(0);
  for (const [row, rating] of own) {
    const { vector, bias } = other[row]!;
    const y = [...vector, 1];
    for (let r = 0; r < f; r++) {
      b[r]! += (rating - bias) * y[r]!;
      for (let c = 0; c < f; c++) a[r]![c]! += y[r]! * y[c]!;
    }
  }
  const solution = eliminate(a, b);
  return { vector: solution.slice(0, -1), bias: solution.at(-1)! };
}

/** SVD++: r̂_ui = μ + b_u + b_i + q_i·(p_u + n_u^-½ Σ_j y_j). `implicit` is y; `own` are the items that a user rated. */
export interface SvdppParameters extends Parameters {
  implicit: number[][];
}

/** p_u + n_u^-½ Σ_j y_j. */
export function svdppVector(p: SvdppParameters, u: number, own: readonly number[]): number[] {
  return p.users[u]!.vector.map((pk, k) => {
    const sum = own.reduce((s, j) => s + p.implicit[j]![k]!, 0);
    return pk + (own.length ? sum / Math.sqrt(own.length) : 0);
  });
}

/**
 * One epoch over batches of users, in place: in each batch users first, with the items as they are, then items. Koren
 * 2008; see native/backend/rating_args.h. `byUser[u]` are the ratings of u by item.
 */
export function svdppEpoch(
  p: SvdppParameters,
  byUser: readonly (readonly Rating[])[],
  batches: readonly (readonly number[])[],
  rate: number,
  regularization: number,
): void {
  const toward = (value: number, gradient: number) => value + rate * (gradient - regularization * value);
  for (const batch of batches) {
    const after: { u: number; i: number; error: number; z: number[]; bias: number; sum: number[] }[] = [];
    for (const u of batch) {
      const own = byUser[u]!.map((r) => r[1]);
      const user = p.users[u]!;
      const implicit = svdppVector(p, u, own).map((z, k) => z - user.vector[k]!);
      const errors: [number, number][] = [];
      const sum = new Array<number>(implicit.length).fill(0);
      for (const [, i, r] of byUser[u]!) {
        const { vector: q, bias } = p.items[i]!;
        const z = user.vector.map((pk, k) => pk + implicit[k]!);
        const error = r - (p.mean + user.bias + bias + dot(q, z));
        errors.push([i, error]);
        q.forEach((qk, k) => {
          sum[k]! += error * qk;
          user.vector[k] = toward(user.vector[k]!, error * qk);
        });
        user.bias = toward(user.bias, error);
      }
      const z = user.vector.map((pk, k) => pk + implicit[k]!);
      const scaled = sum.map((s) => s / Math.sqrt(own.length));
      for (const [i, error] of errors) after.push({ u, i, error, z, bias: user.bias, sum: scaled });
    }
    for (const { i, error, z, sum } of after) {
      const item = p.items[i]!;
      item.vector.forEach((qk, k) => {
        item.vector[k] = toward(qk, error * z[k]!);
      });
      item.bias = toward(item.bias, error);
      p.implicit[i]!.forEach((yk, k) => {
        p.implicit[i]![k] = toward(yk, sum[k]!);
      });
    }
  }
}

/** The batches of 64 users of each of `epochs`, in the order in which they are visited. */
export function svdppBatches(byUser: readonly (readonly Rating[])[], seed: number, epochs: number): number[][][] {
  const purpose = 4n << 56n;
  const users = shuffled(
    [...byUser.keys()].filter((u) => byUser[u]!.length > 0),
    below(BigInt(seed), purpose),
  );
  let batches = Array.from({ length: Math.ceil(users.length / 64) }, (_, b) => users.slice(b * 64, (b + 1) * 64));
  return Array.from({ length: epochs }, (_, epoch) => {
    batches = shuffled(batches, below(BigInt(seed), purpose + 1n + BigInt(epoch)));
    return batches;
  });
}

/**
 * What each of somebody's ratings, given as (item, rating), adds to their predicted rating of `target`, beyond μ + b_target.
 * The prediction is linear in how far each rating is from μ + b_i and, in SVD++, in the y of each rated item: with all of
 * them 0 but those of one, it is what that one adds.
 */
export function explainRating(
  p: Parameters & { implicit?: number[][] },
  own: readonly (readonly [number, number])[],
  target: number,
  regularization: number,
): number[] {
  const unbiased = p.items.map(({ vector }) => ({ vector, bias: 0 }));
  const { vector: q } = p.items[target]!;
  return own.map(([item, rating]) => {
    const y = (p.implicit?.[item] ?? q.map(() => 0)).map((x) => x / Math.sqrt(own.length));
    const alone = own.map(([i]) => {
      const far = i === item ? rating - p.mean - p.items[i]!.bias : 0;
      return [i, far - dot(p.items[i]!.vector, y)] as const;
    });
    const { vector, bias } = solveRatings(alone, unbiased, regularization);
    return dot(vector, q) + bias + dot(q, y);
  });
}
