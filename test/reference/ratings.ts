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
