import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ALS, type ALSOptions, type CsrMatrix, type Interactions, type Tensor } from '../../lib/index.js';
import { loss, type ReferenceOptions, solveRow, transpose } from '../reference/als.js';
import { interactionsOf, modelSuite, triplets } from './suite.js';

const small = { factors: 8, iterations: 3 } as const;
modelSuite(
  'als',
  () => new ALS(small),
  (path, options) => ALS.load(path, options),
  { needsHistory: true },
);
modelSuite(
  'als-cg',
  () => new ALS({ ...small, solver: 'cg' }),
  (path, options) => ALS.load(path, options),
  { needsHistory: true, explainDigits: 1 }, // to what three steps leave open
);

modelSuite(
  'als-subspace',
  () => new ALS({ ...small, solver: 'subspace', blockSize: 3 }),
  (path, options) => ALS.load(path, options),
  { needsHistory: true },
);

async function nested(t: Tensor): Promise<number[][]> {
  const flat = Array.from((await t.data()) as Float32Array);
  const cols = t.shape[1]!;
  return Array.from({ length: t.shape[0]! }, (_, r) => flat.slice(r * cols, (r + 1) * cols));
}

async function dense(m: CsrMatrix): Promise<number[][]> {
  const [indptr, indices, values] = [await m.indptr.data(), await m.indices.data(), await m.values.data()];
  const out = Array.from({ length: m.shape[0] }, () => new Array<number>(m.shape[1]).fill(0));
  for (let r = 0; r < m.shape[0]; r++)
    for (let i = Number(indptr[r]); i < Number(indptr[r + 1]); i++) out[r]![indices[i]!] = values[i]!;
  return out;
}

/** The largest difference, against the largest value. */
function difference(a: readonly number[][], b: readonly number[][]): number {
  const size = Math.max(...b.flat().map(Math.abs));
  return Math.max(...a.flatMap((row, r) => row.map((x, c) => Math.abs(x - b[r]![c]!)))) / size;
}

const [userCount, itemCount] = [30, 40];
const rows = triplets(userCount, itemCount);
let data: Interactions;
let values: number[][];
beforeAll(async () => {
  data = await interactionsOf(rows);
  values = await dense(await data.matrix());
});

const forms: [string, ALSOptions][] = [
  ['ials', { objective: 'ials', unobservedWeight: 0.2, regularization: 0.05 }],
  [
    'ials, exponent 0.5',
    { objective: 'ials', unobservedWeight: 0.2, regularization: 0.05, regularizationExponent: 0.5 },
  ],
  ['ials, constant', { objective: 'ials', regularizationForm: 'constant', regularization: 0.5, alpha: 2 }],
  ['hkv', { objective: 'hkv', regularization: 0.3, alpha: 4 }],
  ['hkv, per entry', { objective: 'hkv', regularization: 0.02, alpha: 4, regularizationForm: 'perEntry' }],
];

describe.each(forms)('against the float64 reference: %s', (_, options) => {
  it('solves users exactly with the items fixed, and items with the users before', async () => {
    const model = await new ALS({ ...options, factors: 6, iterations: 4 }).fit(data);
    const o = model.options as ReferenceOptions;
    const [x, y] = [await nested(model.userFactors), await nested(model.itemFactors)];
    expect(
      difference(
        x,
        values.map((row) => solveRow(row, y, o)),
      ),
    ).toBeLessThan(2e-5);
    // One more half-sweep in the reference from these users is what the engine's next sweep computes first.
    const next = await new ALS({ ...options, factors: 6, iterations: 4 }).fit(data);
    await next.partialFit(data, { update: 'items' });
    const solved = transpose(values).map((column) => solveRow(column, x, o));
    expect(difference(await nested(next.itemFactors), solved)).toBeLessThan(2e-5);
  });

  it('reports the objective, which falls', async () => {
    const heard: number[] = [];
    const model = new ALS({ ...options, factors: 6, iterations: 6, computeLoss: true });
    await model.fit(data, { onProgress: (p) => p.loss !== undefined && heard.push(p.loss) });
    const [x, y] = [await nested(model.userFactors), await nested(model.itemFactors)];
    expect(model.loss.length).toBe(6);
    const exact = loss(values, x, y, model.options as ReferenceOptions);
    expect(Math.abs(model.loss.at(-1)! - exact) / exact).toBeLessThan(1e-5);
    for (let i = 1; i < 6; i++) expect(model.loss[i]!).toBeLessThan(model.loss[i - 1]! * (1 + 1e-6));
    expect(model.loss[5]!).toBeLessThan(0.98 * model.loss[0]!);
    for (const l of heard) expect(model.loss).toContain(l);
  });

  it('conjugate gradients reach the same solution with enough steps', async () => {
    const cg = await new ALS({ ...options, factors: 6, iterations: 4, solver: 'cg', cgSteps: 30 }).fit(data);
    const y = await nested(cg.itemFactors);
    const exact = values.map((row) => solveRow(row, y, cg.options as ReferenceOptions));
    expect(difference(await nested(cg.userFactors), exact)).toBeLessThan(1e-4);
  });

  it('subspace sweeps reach the same objective as exact ones, whatever the block', async () => {
    // From one start, or they may end in minima that differ.
    const fromTheSame = async (more: ALSOptions) => {
      const model = await new ALS({ ...options, factors: 6, iterations: 100 }).fit(data);
      Object.assign(model, { options: { ...model.options, computeLoss: true, ...more } });
      await model.fit(data, { warmStart: true });
      for (let i = 1; i < model.loss.length; i++) expect(model.loss[i]!).toBeLessThan(model.loss[i - 1]! * (1 + 1e-6));
      return model.loss.at(-1)!;
    };
    const exact = await fromTheSame({ iterations: 60 });
    for (const blockSize of [1, 4]) {
      const reached = await fromTheSame({ solver: 'subspace', blockSize, iterations: 150 });
      expect(Math.abs(reached - exact) / exact).toBeLessThan(1e-3);
    }
    // One block of all coordinates is an exact sweep.
    const whole = await new ALS({ ...options, factors: 6, iterations: 3, solver: 'subspace', blockSize: 8 }).fit(data);
    const direct = await new ALS({ ...options, factors: 6, iterations: 3 }).fit(data);
    expect(difference(await nested(whole.userFactors), await nested(direct.userFactors))).toBeLessThan(1e-4);
  });

  it('a subspace step is the least of the objective along its block', async () => {
    const step = { ...options, factors: 6, solver: 'subspace', blockSize: 2, iterations: 2 } as const;
    const model = await new ALS(step).fit(data);
    const [x, y] = [await nested(model.userFactors), await nested(model.itemFactors)];
    const o = model.options as ReferenceOptions;
    // The sweep ended with the users' last two coordinates: nudging any of them must not lower the objective.
    const at = loss(values, x, y, o);
    for (const [u, k] of [
      [0, 4],
      [7, 5],
      [29, 4],
    ] as const)
      for (const nudge of [-0.01, 0.01]) {
        const moved = x.map((row, r) => (r === u ? row.map((v, c) => (c === k ? v + nudge : v)) : row));
        expect(loss(values, moved, y, o)).toBeGreaterThan(at - 1e-5);
      }
  });

  it('folds a known history in to the row of the fit, and explains its scores', async () => {
    const model = await new ALS({ ...options, factors: 6, iterations: 4 }).fit(data);
    const x = await nested(model.userFactors);
    for (const user of [0, 13, 29]) {
      const history = rows.filter((r) => r[0] === user).map(([, item, weight]) => ({ item, weight }));
      const vector = [...(await model.foldIn(history))];
      expect(difference([vector], [x[model.users.indexOf(user)]!])).toBeLessThan(1e-5);
      const list = await model.recommend(user, { k: 5 });
      const visitor = await model.recommend({ history }, { k: 5 });
      expect(visitor.map((r) => r.item)).toEqual(list.map((r) => r.item));
      for (const { item, score } of list) {
        const why = await model.explain(user, item, { k: 1000 });
        expect(why.contributions.map((c) => c.item).sort()).toEqual(history.map((h) => h.item).sort());
        expect(why.contributions.reduce((sum, c) => sum + c.contribution, 0)).toBeCloseTo(why.score, 6);
        expect(why.score).toBeCloseTo(score, 4);
        expect((await model.explain({ history }, item)).score).toBeCloseTo(score, 4);
        expect((await model.explain(user, item, { k: 2 })).contributions).toEqual(why.contributions.slice(0, 2));
      }
    }
  });
});

/** Two tastes: users like items of their own parity. */
const tastes = Array.from({ length: 60 }, (_, u) =>
  Array.from({ length: 7 }, (_, n) => [`u${u}`, `i${((u * 3 + n * 2 + (u >> 1)) % 30) * 2 + (u % 2)}`, 1] as const),
).flat();
const parity = (id: unknown) => Number(String(id).slice(1)) % 2;

describe('taste', () => {
  let model: ALS;
  beforeAll(async () => {
    model = await new ALS({ factors: 8, iterations: 10, regularization: 0.01 }).fit(await interactionsOf(tastes));
  });

  it('recommends by it', async () => {
    for (const user of ['u0', 'u1', 'u20', 'u41'])
      for (const { item } of await model.recommend(user, { k: 8 })) expect(parity(item)).toBe(parity(user));
  });

  it.each(['cosine', 'innerProduct', 'l2'] as const)('finds similar items and users: %s', async (metric) => {
    const items = await model.similarItems('i4', { k: 6, metric });
    expect(items.length).toBe(6);
    expect(items.map((r) => r.item)).not.toContain('i4');
    for (const { item } of items) expect(parity(item)).toBe(0);
    const sorted = items.map((r) => r.score).sort((a, b) => (metric === 'l2' ? a - b : b - a));
    expect(items.map((r) => r.score)).toEqual(sorted);
    const users = await model.similarUsers('u3', { k: 5, metric, deny: ['u5'] });
    expect(users.map((r) => r.user)).not.toContain('u5');
    for (const { user } of users) expect(parity(user)).toBe(1);
  });

  it('refuses bad questions', async () => {
    await expect(model.similarItems('x')).rejects.toMatchObject({ code: 'ERR_UNKNOWN_ID' });
    await expect(model.similarUsers('u1', { k: 0 })).rejects.toMatchObject({ code: 'ERR_RANGE' });
    await expect(model.similarItems('i4', { metric: 'dot' as never })).rejects.toMatchObject({ code: 'ERR_ARGUMENT' });
    await expect(model.explain('u1', 'x')).rejects.toMatchObject({ code: 'ERR_UNKNOWN_ID' });
    await expect(model.explain('u1', 'i1', { k: 0 })).rejects.toMatchObject({ code: 'ERR_RANGE' });
    await expect(model.foldIn([])).rejects.toMatchObject({ code: 'ERR_VALUE' });
  });
});

describe('partialFit', () => {
  const options = { factors: 6, iterations: 4, regularization: 0.05 };

  it('takes in a new user as fold-in would, and leaves all else', async () => {
    const model = await new ALS(options).fit(data);
    const [x, y] = [await nested(model.userFactors), await nested(model.itemFactors)];
    const vector = [...(await model.foldIn([3, { item: 5, weight: 2 }]))];
    await model.partialFit(
      await interactionsOf([
        [1000, 3, 1],
        [1000, 5, 2],
      ]),
      { update: 'users' },
    );
    expect(model.users.size).toBe(userCount + 1);
    const after = await nested(model.userFactors);
    expect(after.slice(0, userCount)).toEqual(x);
    expect(difference([after[userCount]!], [vector])).toBeLessThan(1e-6);
    expect(await nested(model.itemFactors)).toEqual(y);
    expect((await model.recommend(1000, { k: itemCount })).length).toBe(itemCount - 2);
  });

  it('takes in new items and users together', async () => {
    const model = await new ALS(options).fit(data);
    const [x, y] = [await nested(model.userFactors), await nested(model.itemFactors)];
    await model.partialFit(
      await interactionsOf([
        [4, 900, 3],
        [7, 900, 2],
        [1000, 900, 1],
        [1000, 2, 1],
      ]),
    );
    expect([model.users.size, model.items.size]).toEqual([userCount + 1, itemCount + 1]);
    const touched = [4, 7].map((u) => model.users.indexOf(u));
    const [x2, y2] = [await nested(model.userFactors), await nested(model.itemFactors)];
    for (const [u, row] of x.entries()) expect(x2[u]!.join() === row.join()).toBe(!touched.includes(u));
    for (const [i, row] of y.entries()) expect(y2[i]!.join() === row.join()).toBe(i !== model.items.indexOf(2));
    const now = await dense(model.interactions);
    const o = model.options as ReferenceOptions;
    for (const u of [...touched, userCount])
      expect(difference([x2[u]!], [solveRow(now[u]!, y2, o)])).toBeLessThan(2e-5);
    expect(await model.score(1000, 900)).toBeGreaterThan(0.1);
  });

  it('merges what is there already as asked', async () => {
    for (const [duplicates, expected] of [
      ['last', 9],
      ['sum', 9 + values[0]![data.items.indexOf(rows[0]![1])]!],
    ] as const) {
      const model = await new ALS(options).fit(data);
      await model.partialFit(await interactionsOf([[0, rows[0]![1], 9]]), { duplicates });
      const now = await dense(model.interactions);
      expect(now[model.users.indexOf(0)]![model.items.indexOf(rows[0]![1])]).toBe(expected);
    }
    const model = await new ALS(options).fit(data);
    const before = await model.recommend(0);
    const again = model.partialFit(await interactionsOf([[0, rows[0]![1], 9]]), { duplicates: 'refuse' });
    await expect(again).rejects.toMatchObject({ code: 'ERR_VALUE' });
    const text = model.partialFit(await interactionsOf([['0', '1', 9]]));
    await expect(text).rejects.toMatchObject({ code: 'ERR_ARGUMENT' });
    expect(await model.recommend(0)).toEqual(before);
    await expect(new ALS(options).partialFit(data)).rejects.toMatchObject({ code: 'ERR_NOT_FITTED' });
  });
});

describe('warm start', () => {
  it('goes on where the last fit ended, by id', async () => {
    const options = { factors: 6, regularization: 0.05, computeLoss: true };
    const cold = await new ALS({ ...options, iterations: 2 }).fit(data);
    const end = cold.loss[1]!;
    await cold.fit(data, { warmStart: true });
    expect(cold.loss[0]!).toBeLessThan(end);
    const long = await new ALS({ ...options, iterations: 4 }).fit(data);
    expect(difference(await nested(cold.userFactors), await nested(long.userFactors))).toBeLessThan(1e-5);
    // The same interactions in another order, and somebody new.
    await cold.fit(await interactionsOf([...rows, [1000, 3, 1] as const].reverse()), { warmStart: true });
    expect(cold.loss[0]!).toBeLessThan(end * 1.05);
    await expect(new ALS(options).fit(data, { warmStart: true })).rejects.toMatchObject({ code: 'ERR_NOT_FITTED' });
  });
});

it('a loaded model learns on', async () => {
  const path = join(tmpdir(), `topknot-${process.pid}.safetensors`);
  const text = async (rows: readonly (readonly [unknown, unknown, number])[]) =>
    (await interactionsOf(rows.map(([u, i, w]) => [`u${u}`, `i${i}`, w]))) as Interactions<string, string>;
  const model = await new ALS<string, string>({ factors: 6, iterations: 2 }).fit(await text(rows));
  await model.save(path);
  const back = await ALS.load<string, string>(path);
  rmSync(path);
  const more = await text([
    [3, 900, 2],
    [1000, 5, 1],
  ]);
  await Promise.all([model.partialFit(more), back.partialFit(more)]);
  expect([...back.users]).toEqual([...model.users]);
  expect(await back.recommend(['u1000', 'u3'], { k: 20 })).toEqual(await model.recommend(['u1000', 'u3'], { k: 20 }));
  await back.fit(await text(rows), { warmStart: true });
  expect(back.users.size).toBe(userCount);
});

describe('options', () => {
  const dir = mkdtempSync(join(tmpdir(), 'topknot-als-'));
  afterAll(() => rmSync(dir, { recursive: true }));

  const bad: [ALSOptions, string, RegExp][] = [
    [{ factors: 0 }, 'ERR_RANGE', /^factors: expected 1 to 4096 but received 0/],
    [{ factors: 2.5 }, 'ERR_ARGUMENT', /^factors: expected an integer but received 2.5/],
    [{ regularization: -1 }, 'ERR_RANGE', /^regularization: /],
    [{ regularization: Number.NaN }, 'ERR_ARGUMENT', /^regularization: .* NaN/],
    [{ alpha: Number.POSITIVE_INFINITY }, 'ERR_ARGUMENT', /^alpha: .* Infinity/],
    [{ unobservedWeight: '1' as never }, 'ERR_ARGUMENT', /^unobservedWeight: .* '1'/],
    [{ solver: 'lu' as never }, 'ERR_ARGUMENT', /^solver: expected 'cholesky' or 'cg' or 'subspace' but received 'lu'/],
    [{ objective: 'bpr' as never }, 'ERR_ARGUMENT', /^objective: /],
    [{ iterations: 0 }, 'ERR_RANGE', /^iterations: /],
    [{ seed: -1 }, 'ERR_RANGE', /^seed: /],
    [{ cgSteps: 0 }, 'ERR_RANGE', /^cgSteps: /],
    [{ blockSize: 0 }, 'ERR_RANGE', /^blockSize: /],
    [{ factor: 64 } as never, 'ERR_ARGUMENT', /^options\.factor: no such option/],
  ];
  it.each(bad)('refuses %j', (options, code, message) => {
    expect(() => new ALS(options)).toThrow(expect.objectContaining({ code, message: expect.stringMatching(message) }));
  });

  it('travel with the model', async () => {
    const model = await new ALS({ factors: 3, objective: 'hkv', solver: 'cg', seed: 7 }).fit(data);
    await model.save(join(dir, 'a'));
    const back = await ALS.load(join(dir, 'a'));
    expect(back.options).toEqual(model.options);
    expect([...(await back.foldIn([3, 4]))]).toEqual([...(await model.foldIn([3, 4]))]);
    expect(await back.explain(2, 5)).toEqual(await model.explain(2, 5));
    expect(await back.similarItems(5)).toEqual(await model.similarItems(5));
  });

  it('depend on the seed', async () => {
    const a = await new ALS({ ...small, seed: 1 }).fit(data);
    const b = await new ALS({ ...small, seed: 2 }).fit(data);
    expect(await nested(a.itemFactors)).not.toEqual(await nested(b.itemFactors));
  });
});
