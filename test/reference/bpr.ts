// BPR in float64, one sample after the other, in the order that native/models/bpr_schedule.h documents.
import { RandomStream, shuffle } from './random.js';

export interface ReferenceOptions {
  factors: number;
  iterations: number;
  learningRate: number;
  regularization: number;
  negativeSampling: 'uniform' | 'popularity' | 'hard';
  candidates: number;
  biases: boolean;
  initStd: number;
  seed: number;
}

export interface Learned {
  x: number[][];
  y: number[][];
  b: number[];
  /** Mean of -ln σ(s_i - s_j) over each epoch's samples. */
  loss: number[];
}

const dot = (a: readonly number[], b: readonly number[]): number => a.reduce((sum, v, k) => sum + v * b[k]!, 0);
export const sigmoid = (s: number): number => 1 / (1 + Math.exp(-s));

/** ln σ(s_i - s_j) - λ/2 (|x|² + |y_i|² + |y_j|² + b_i² + b_j²): what a sample's step climbs. */
export function objective(x: number[], yi: number[], yj: number[], bi: number, bj: number, lambda: number): number {
  const margin = dot(x, yi) + bi - dot(x, yj) - bj;
  return Math.log(sigmoid(margin)) - (lambda / 2) * (dot(x, x) + dot(yi, yi) + dot(yj, yj) + bi * bi + bj * bj);
}

/** Everybody's items, and the vectors and biases of a fit. */
export interface Fitted {
  owned: readonly (readonly number[])[];
  x: readonly (readonly number[])[];
  y: readonly (readonly number[])[];
  b: readonly number[];
}

/** The streams of random numbers: what for, epoch, index. */
const stream = (purpose: number, epoch: number, index: number): bigint =>
  (BigInt(purpose) << 60n) | (BigInt(epoch) << 20n) | BigInt(index);

/** How many strata and blocks. */
export function parts(users: number, items: number, positives: number): number {
  const most = Math.min(Math.floor(Math.sqrt(positives / 2048)), Math.floor(items / 512), Math.floor(users / 16), 64);
  return Math.max(1, most);
}

/** `owned[u]`: the items of user u, rising. */
export function bpr(owned: readonly (readonly number[])[], itemCount: number, o: ReferenceOptions): Learned {
  const userCount = owned.length;
  const start = (row: bigint) => {
    const random = new RandomStream(o.seed, row);
    return Array.from({ length: o.factors }, () => (o.initStd / Math.sqrt(o.factors)) * random.normal());
  };
  const x = owned.map((items, u) => (items.length ? start(2n ** 40n + BigInt(u)) : new Array(o.factors).fill(0)));
  const y = Array.from({ length: itemCount }, (_, i) => start(BigInt(i)));
  const b: number[] = new Array(itemCount).fill(0);
  const positives = owned.reduce((sum, items) => sum + items.length, 0);
  const P = parts(userCount, itemCount, positives);
  const loss: number[] = [];

  const climb = (u: number, i: number, j: number): number => {
    const margin = dot(x[u]!, y[i]!) + b[i]! - dot(x[u]!, y[j]!) - b[j]!;
    const [g, old] = [sigmoid(-margin), [...x[u]!]];
    const [eta, lambda] = [o.learningRate, o.regularization];
    for (let k = 0; k < o.factors; k++) {
      x[u]![k]! += eta * (g * (y[i]![k]! - y[j]![k]!) - lambda * x[u]![k]!);
      y[i]![k]! += eta * (g * old[k]! - lambda * y[i]![k]!);
      y[j]![k]! += eta * (-g * old[k]! - lambda * y[j]![k]!);
    }
    if (o.biases) {
      b[i]! += eta * (g - lambda * b[i]!);
      b[j]! += eta * (-g - lambda * b[j]!);
    }
    return -Math.log(sigmoid(margin));
  };

  for (let epoch = 0; epoch < o.iterations; epoch++) {
    const dealt = (count: number, purpose: number) => {
      const order = Array.from({ length: count }, (_, n) => n);
      shuffle(order, new RandomStream(o.seed, stream(purpose, epoch, 0)));
      return Array.from({ length: P }, (_, p) =>
        order.slice(Math.floor((p * count) / P), Math.floor(((p + 1) * count) / P)),
      );
    };
    const [strata, blocks] = [dealt(userCount, 1), dealt(itemCount, 2)];
    const blockOf = new Map(blocks.flatMap((block, n) => block.map((i) => [i, n] as const)));
    const tasks = blocks.map((_, n) =>
      strata.map((stratum, s) => {
        const pairs = stratum.flatMap((u) => owned[u]!.filter((i) => blockOf.get(i) === n).map((i) => [u, i] as const));
        shuffle(pairs, new RandomStream(o.seed, stream(3, epoch, n * P + s)));
        return pairs;
      }),
    );
    let [sum, samples] = [0, 0];
    for (let round = 0; round < P; round++)
      for (let s = 0; s < P; s++) {
        const n = (s + round) % P;
        const pool = o.negativeSampling === 'popularity' ? tasks[n]!.flat().map((pair) => pair[1]) : blocks[n]!;
        const random = new RandomStream(o.seed, stream(4, epoch, n * P + s));
        for (const [u, i] of tasks[n]![s]!) {
          const count = o.negativeSampling === 'hard' ? o.candidates : 1;
          const drawn = Array.from({ length: count }, () => {
            for (let attempt = 0; attempt < 16; attempt++) {
              const j = pool[random.below(pool.length)]!;
              if (!owned[u]!.includes(j)) return j;
            }
            return -1;
          }).filter((j) => j >= 0);
          if (drawn.length === 0) continue;
          const score = (j: number) => dot(x[u]!, y[j]!) + b[j]!;
          sum += climb(
            u,
            i,
            drawn.reduce((best, j) => (score(j) > score(best) ? j : best)),
          );
          samples++;
        }
      }
    loss.push(sum / samples);
  }
  return { x, y, b, loss };
}

/** A negative of somebody with these items and this vector, or -1. */
function negative(
  own: readonly number[],
  vector: readonly number[],
  fit: Fitted,
  o: ReferenceOptions,
  random: RandomStream,
) {
  const everything = fit.owned.flat();
  const drawn = Array.from({ length: o.negativeSampling === 'hard' ? o.candidates : 1 }, () => {
    for (let attempt = 0; attempt < 16; attempt++) {
      const j =
        o.negativeSampling === 'popularity' ? everything[random.below(everything.length)]! : random.below(fit.y.length);
      if (!own.includes(j)) return j;
    }
    return -1;
  }).filter((j) => j >= 0);
  const score = (j: number) => dot(vector, fit.y[j]!) + fit.b[j]!;
  return drawn.length ? drawn.reduce((best, j) => (score(j) > score(best) ? j : best)) : -1;
}

/**
 * Folds a history in: its vector, as the sum of one for each of its items. A step adds η g (y_i - y_j) to that of item i and
 * shrinks all by 1 - η λ.
 */
export function foldIn(own: readonly number[], fit: Fitted, o: ReferenceOptions): number[][] {
  const parts = own.map(() => new Array<number>(o.factors).fill(0));
  const random = new RandomStream(o.seed, stream(5, 0, 1));
  for (let epoch = 0; epoch < o.iterations; epoch++) {
    const order = [...own.keys()];
    shuffle(order, new RandomStream(o.seed, stream(5, epoch, 0)));
    for (const entry of order) {
      const x = parts[0]!.map((_, k) => parts.reduce((sum, part) => sum + part[k]!, 0));
      const i = own[entry]!;
      const j = negative(own, x, fit, o, random);
      if (j < 0) continue;
      const g = sigmoid(dot(x, fit.y[j]!) + fit.b[j]! - dot(x, fit.y[i]!) - fit.b[i]!);
      for (const part of parts) for (let k = 0; k < o.factors; k++) part[k]! *= 1 - o.learningRate * o.regularization;
      for (let k = 0; k < o.factors; k++) parts[entry]![k]! += o.learningRate * g * (fit.y[i]![k]! - fit.y[j]![k]!);
    }
  }
  return parts;
}

/** Vector and bias of an item with these users, all else as it is: native/models/bpr.h, bprItems. */
export function itemRow(item: number, users: readonly number[], fit: Fitted, o: ReferenceOptions): [number[], number] {
  const choices = fit.owned.flatMap((items, u) => items.map((i) => [u, i] as const));
  const uniform = Math.max(1, Math.floor((choices.length + Math.floor(fit.y.length / 2)) / fit.y.length));
  const asNegative = o.negativeSampling === 'popularity' ? users.length : uniform;
  const y = new Array<number>(o.factors).fill(0);
  let b = 0;
  const random = new RandomStream(o.seed, stream(6, 0, 1));
  const step = (u: number, other: number, sign: 1 | -1) => {
    const margin = sign * (dot(y, fit.x[u]!) + b - dot(fit.x[u]!, fit.y[other]!) - fit.b[other]!);
    const move = sign * o.learningRate * sigmoid(-margin);
    for (let k = 0; k < o.factors; k++) y[k]! += move * fit.x[u]![k]! - o.learningRate * o.regularization * y[k]!;
    if (o.biases) b += move - o.learningRate * o.regularization * b;
  };
  let taken = 0;
  for (let epoch = 0; epoch < o.iterations; epoch++) {
    const order = [...users];
    shuffle(order, new RandomStream(o.seed, stream(6, epoch, 0)));
    for (const u of order) {
      const other = negative(fit.owned[u]!, fit.x[u]!, fit, o, random);
      if (other >= 0) step(u, other, 1);
      taken++;
      const due = (steps: number) => Math.floor((steps * asNegative) / users.length);
      for (let n = due(taken) - due(taken - 1); n > 0; n--)
        for (let attempt = 0; attempt < 16; attempt++) {
          const [stranger, chosen] = choices[random.below(choices.length)]!;
          if (fit.owned[stranger]!.includes(item)) continue;
          step(stranger, chosen, -1);
          break;
        }
    }
  }
  return [y, b];
}
