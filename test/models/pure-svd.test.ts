import { beforeAll, describe, expect, it } from 'vitest';
import { CsrMatrix, type Interactions, PureSVD, setThreads, threads, truncatedSvd } from '../../lib/index.js';
import { svd } from '../reference/svd.js';
import { dense, difference, nested, transpose } from './matrices.js';
import { interactionsOf, modelSuite, numbers, triplets } from './suite.js';

modelSuite(
  'pure-svd',
  () => new PureSVD({ factors: 8 }),
  (path, options) => PureSVD.load(path, options),
  { needsHistory: true },
);

const rows = triplets(30, 40);
const historyOf = (user: number) => rows.filter((r) => r[0] === user).map(([, item, weight]) => ({ item, weight }));
let data: Interactions;
let byUser: number[][];
beforeAll(async () => {
  data = await interactionsOf(rows);
  byUser = await dense(await data.matrix());
});

/** A sparse matrix from a dense one. */
async function sparse(m: readonly (readonly number[])[]): Promise<CsrMatrix> {
  const cells = m.flatMap((row, r) => row.map((x, c) => [r, c, x] as const)).filter(([, , x]) => x !== 0);
  const column = (i: 0 | 1) => Int32Array.from(cells, (cell) => cell[i]);
  const values = Float32Array.from(cells, (cell) => cell[2]);
  return CsrMatrix.fromCoo(column(0), column(1), values, { shape: [m.length, m[0]!.length] });
}

/** Random cells over a rank that is given, or over all. */
function random(rowCount: number, cols: number, rank = 0): number[][] {
  const next = numbers(rowCount * 100 + cols);
  const normal = (r: number, c: number) =>
    Array.from({ length: r }, () => Array.from({ length: c }, () => Math.round(16 * (next() + next() - 1)) / 16));
  if (!rank) return normal(rowCount, cols).map((row) => row.map((x) => (next() < 0.3 ? x : 0)));
  const [a, b] = [normal(rowCount, rank), normal(rank, cols)];
  return a.map((row) => b[0]!.map((_, c) => row.reduce((sum, x, i) => sum + x * b[i]![c]!, 0)));
}

describe('truncatedSvd against Jacobi in float64', () => {
  const cases: [string, number[][], number][] = [
    ['tall', random(300, 40), 6],
    ['wide', random(35, 280), 6],
    ['all of a small one', random(20, 12), 12],
    ['all of a wide small one', random(9, 33), 9],
    ['one', random(50, 60), 1],
    ['of low rank', random(80, 50, 5), 9],
    ['an empty column and row', random(40, 30).map((row, r) => row.map((x, c) => (r === 3 || c === 5 ? 0 : x))), 10],
    ['nothing', [[0, 0, 0], [0, 0, 0]], 2], // biome-ignore format: a matrix
  ];
  it.each(cases)('%s', async (_, matrix, k) => {
    const exact = svd(matrix);
    const found = await truncatedSvd(await sparse(matrix), k);
    const s = [...(await found.s.data())];
    const [u, v] = [await nested(found.u), await nested(found.v)];
    const rank = exact.s.filter((x) => x > 1e-9 * exact.s[0]!).length;
    expect(found.residual).toBeLessThan(2e-6);
    for (let j = 0; j < k; j++) {
      if (j >= rank) {
        expect([s[j], ...u.map((row) => row[j]), ...v.map((row) => row[j])].every((x) => x === 0)).toBe(true);
        continue;
      }
      expect(Math.abs(s[j]! - exact.s[j]!)).toBeLessThan(2e-6 * exact.s[0]!);
      const [uj, vj] = [u.map((row) => row[j]!), v.map((row) => row[j]!)];
      const most = vj.reduce((a, b) => (Math.abs(b) > Math.abs(a) ? b : a));
      expect(most).toBeGreaterThan(0);
      // A v = σ u and Aᵀ u = σ v; where the next value is apart, v is the reference's too.
      const size = exact.s[0]!;
      const av = matrix.map((row) => row.reduce((sum, x, c) => sum + x * vj[c]!, 0));
      const au = transpose(matrix).map((column) => column.reduce((sum, x, r) => sum + x * uj[r]!, 0));
      for (const [r, x] of av.entries()) expect(Math.abs(x - s[j]! * uj[r]!)).toBeLessThan(1e-5 * size);
      for (const [c, x] of au.entries()) expect(Math.abs(x - s[j]! * vj[c]!)).toBeLessThan(1e-5 * size);
      const apart = Math.min(...exact.s.filter((_, i) => i !== j).map((x) => Math.abs(x - exact.s[j]!)));
      const cosine = Math.abs(vj.reduce((sum, x, c) => sum + x * exact.v[j]![c]!, 0));
      if (apart > 0.01 * size) expect(cosine).toBeGreaterThan(1 - 1e-5);
    }
  });

  it('gives orthonormal vectors, the same bytes at any thread count, and what the seed says', async () => {
    const matrix = await sparse(random(400, 150));
    const before = threads();
    const runs: Float32Array[] = [];
    try {
      for (const count of [1, 2, 4]) {
        setThreads(count);
        runs.push((await (await truncatedSvd(matrix, 12)).u.data()) as Float32Array);
      }
    } finally {
      setThreads(before);
    }
    expect(runs[1]).toEqual(runs[0]);
    expect(runs[2]).toEqual(runs[0]);
    const { u, v, s } = await truncatedSvd(matrix, 12, { seed: 7 });
    for (const m of [transpose(await nested(u)), transpose(await nested(v))])
      for (const [i, a] of m.entries())
        for (const [j, b] of m.entries())
          expect(Math.abs(a.reduce((sum, x, r) => sum + x * b[r]!, 0) - (i === j ? 1 : 0))).toBeLessThan(1e-5);
    const other = await (await truncatedSvd(matrix, 12)).s.data();
    for (const [j, x] of [...(await s.data())].entries()) expect(x).toBeCloseTo(other[j]!, 4);
  });

  it('says how far it came when it may not go on', async () => {
    const matrix = await sparse(random(300, 200));
    const short = await truncatedSvd(matrix, 20, { maxCycles: 1, oversampling: 0 });
    const long = await truncatedSvd(matrix, 20);
    expect(short.residual).toBeGreaterThan(1e-6);
    expect(long.residual).toBeLessThanOrEqual(1e-6);
    expect((await short.s.data())[19]!).toBeLessThanOrEqual((await long.s.data())[19]! * (1 + 1e-6));
  });

  it('refuses bad arguments, and stops', async () => {
    const matrix = await sparse(random(10, 8));
    const bad: [unknown[], string][] = [
      [[matrix, 0], 'ERR_RANGE'],
      [[matrix, 9], 'ERR_RANGE'],
      [[matrix, 2.5], 'ERR_ARGUMENT'],
      [[[[1, 2]], 1], 'ERR_ARGUMENT'],
      [[matrix, 2, { tolerance: -1 }], 'ERR_RANGE'],
      [[matrix, 2, { tolerance: 0 }], 'ERR_RANGE'],
      [[matrix, 2, { maxCycles: 0 }], 'ERR_RANGE'],
      [[matrix, 2, { power: 3 }], 'ERR_ARGUMENT'],
    ];
    for (const [given, code] of bad)
      await expect((truncatedSvd as (...a: unknown[]) => Promise<unknown>)(...given)).rejects.toMatchObject({ code });
    const stopped = truncatedSvd(matrix, 2, { signal: AbortSignal.abort(new Error('enough')) });
    await expect(stopped).rejects.toThrow('enough');
  });
});

describe('PureSVD', () => {
  it('scores x V Vᵀ', async () => {
    const model = await new PureSVD({ factors: 6 }).fit(data);
    const v = svd(byUser).v.slice(0, 6);
    const inner = (a: readonly number[], b: readonly number[]) => a.reduce((sum, x, i) => sum + x * b[i]!, 0);
    const exact = byUser.map((x) => x.map((_, j) => v.reduce((sum, vector) => sum + inner(x, vector) * vector[j]!, 0)));
    const [x, y] = [await nested(model.userFactors), await nested(model.itemFactors)];
    const scores = x.map((user) => y.map((item) => inner(user, item)));
    expect(difference(scores, exact)).toBeLessThan(2e-5);
    expect([...(await model.singularValues.data())].length).toBe(6);
    for (const user of [0, 13, 29]) {
      const vector = [...(await model.foldIn(historyOf(user)))];
      expect(difference([vector], [x[model.users.indexOf(user)]!])).toBeLessThan(1e-6);
      const list = await model.recommend(user, { k: 5 });
      expect((await model.recommend({ history: historyOf(user) }, { k: 5 })).map((r) => r.item)).toEqual(
        list.map((r) => r.item),
      );
      for (const { item, score } of list) {
        const why = await model.explain(user, item, { k: 1000 });
        expect(why.score).toBeCloseTo(score, 4);
        expect(why.contributions.map((c) => c.item).sort()).toEqual(
          historyOf(user)
            .map((h) => h.item)
            .sort(),
        );
        expect((await model.explain({ history: historyOf(user) }, item)).score).toBeCloseTo(score, 4);
      }
    }
    expect((await model.similarItems(3, { k: 4 })).length).toBe(4);
    expect((await model.similarUsers(3, { k: 4 })).length).toBe(4);
  });

  it('starts from the last fit', async () => {
    const matrix = await sparse(random(600, 400).map((row) => row.map(Math.abs)));
    const exact = await (await truncatedSvd(matrix, 20)).s.data();
    const model = new PureSVD({ factors: 20, maxCycles: 1, oversampling: 0 });
    const missing: number[] = [];
    for (const warmStart of [false, true, true]) {
      await model.fit(matrix, { warmStart });
      missing.push(exact[19]! - (await model.singularValues.data())[19]!);
    }
    expect(missing[0]!).toBeGreaterThan(1e-4 * exact[19]!);
    expect(missing[1]!).toBeLessThan(0.5 * missing[0]!);
    expect(missing[2]!).toBeLessThan(0.5 * missing[1]!);
    await expect(new PureSVD().fit(data, { warmStart: true })).rejects.toMatchObject({ code: 'ERR_NOT_FITTED' });
  });

  it('takes more factors than there are', async () => {
    const model = await new PureSVD({ factors: 64 }).fit(data);
    const s = await model.singularValues.data();
    expect([...s.slice(30)].every((x) => x === 0)).toBe(true);
    const exact = svd(byUser).s;
    for (let j = 0; j < 29; j++) expect(s[j]!).toBeCloseTo(exact[j]!, 3);
  });

  it.each([
    [{ factors: 0 }, 'ERR_RANGE'],
    [{ factors: 1.5 }, 'ERR_ARGUMENT'],
    [{ tolerance: Number.NaN }, 'ERR_ARGUMENT'],
    [{ seed: -1 }, 'ERR_RANGE'],
    [{ rank: 5 } as never, 'ERR_ARGUMENT'],
  ])('refuses %j', (options, code) => {
    expect(() => new PureSVD(options)).toThrow(expect.objectContaining({ code }));
  });
});
