import { expect } from 'vitest';
import {
  type CsrMatrix,
  type ExplainOptions,
  type Fittable,
  type History,
  type Id,
  Interactions,
  type JobOptions,
  type PartialFitOptions,
  type Recommendation,
  type RecommendOptions,
  type Tensor,
  TopknotError,
  type Visitor,
} from '../../lib/index.js';
import type { Scorer } from '../../lib/models/recommender.js';

/** What every model can do. */
export interface AnyModel extends Scorer {
  fit(interactions: Fittable, options?: JobOptions): Promise<unknown>;
  readonly isFitted: boolean;
  recommend(user: Id, options?: RecommendOptions & JobOptions): Promise<Recommendation[]>;
  recommend(users: readonly Id[], options?: RecommendOptions & JobOptions): Promise<Recommendation[][]>;
  recommend(visitor: Visitor, options?: RecommendOptions & JobOptions): Promise<Recommendation[]>;
  recommendSync(who: Id | Visitor, options?: RecommendOptions): Recommendation[];
  score(who: Id | Visitor, item: Id, options?: JobOptions): Promise<number>;
  readonly interactions: CsrMatrix;
  save(path: string, options?: JobOptions): Promise<void>;
  dispose(): void;
  // What many can.
  foldIn?(history: History, options?: JobOptions): Promise<Float32Array>;
  explain?(
    user: Id | Visitor,
    item: Id,
    options?: ExplainOptions,
  ): Promise<{ score: number; baseline?: number; contributions: readonly { contribution: number }[] }>;
  readonly userFactors?: Tensor;
  readonly itemFactors?: Tensor;
  readonly userBiases?: Tensor;
  readonly itemBiases?: Tensor | undefined;
  readonly singularValues?: Tensor;
  similarItems?(item: Id, options?: { k?: number } & JobOptions): Promise<unknown>;
  similarUsers?(user: Id, options?: { k?: number } & JobOptions): Promise<unknown>;
  partialFit?(interactions: Fittable, options?: PartialFitOptions): Promise<unknown>;
}

/** A repeatable stream of numbers in [0, 1): mulberry32. */
export function numbers(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Random triplets in which every user and every item occurs; ids made by `user` and `item`. */
export function triplets(users: number, items: number, user = (u: number): Id => u, item = (i: number): Id => i) {
  const next = numbers(users * 1000 + items);
  const cells = new Map<string, [Id, Id, number]>();
  const add = (u: number, i: number) => cells.set(`${u} ${i}`, [user(u), item(i), 1 + Math.floor(next() * 4)]);
  for (let u = 0; u < users; u++) for (let n = 0; n < 6; n++) add(u, Math.floor(next() ** 2 * items));
  for (let i = 0; i < items; i++) add(Math.floor(next() * users), i);
  return [...cells.values()];
}

export const interactionsOf = (rows: readonly (readonly [Id, Id, number])[]): Promise<Interactions> =>
  Interactions.fromArrays({
    users: rows.map((r) => r[0]),
    items: rows.map((r) => r[1]),
    values: rows.map((r) => r[2]),
  });

/** Calls what must reject, not throw, with a TopknotError of this code and message; nothing where there is no call. */
export async function rejects(
  wanted: { code: string; message?: RegExp },
  call?: () => Promise<unknown>,
): Promise<void> {
  if (!call) return;
  const { code, message = /^/ } = wanted;
  const error = await call().then(
    () => undefined,
    (e) => e,
  );
  expect(error).toBeInstanceOf(TopknotError);
  expect(error).toMatchObject({ code, message: expect.stringMatching(message) });
}
