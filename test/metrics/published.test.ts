// Published figures on public data, which is not part of this repository: skipped where it is missing.
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gunzipSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { CsrMatrix, evaluate, Popularity } from '../../lib/index.js';

const data = process.env.TOPKNOT_DATA ?? fileURLToPath(new URL('../../../shared/data', import.meta.url));
const missing = ['gowalla', 'ml-1m'].filter((name) => !existsSync(join(data, name)));
if (missing.length > 0)
  console.warn(`published figures: skipped, ${missing.join(' and ')} not found in ${data} (set TOPKNOT_DATA)`);

const lines = (file: string) =>
  gunzipSync(readFileSync(join(data, file)))
    .toString()
    .trimEnd()
    .split('\n');
/** The numbers of a line: a user, then items. */
const numbers = (line: string) => line.split(/[\t ]/).map(Number);

function matrix(rows: number[][], shape: readonly [number, number]) {
  const users = rows.flatMap(([user, ...items]) => items.map(() => user!));
  const items = rows.flatMap(([, ...items]) => items);
  return CsrMatrix.fromCoo(Int32Array.from(users), Int32Array.from(items), undefined, { shape });
}

describe.skipIf(missing.length > 0)('popularity, as published', () => {
  it.each([
    ['gowalla', 'gowalla', [29_858, 40_981], { recall: 0.04163, ndcg: 0.03169 }, 5e-6],
    // The order of the items of one popularity moves these by 4e-5, and is not published.
    ['ML-1M, LightGCN split', 'ml-1m/lightgcn-split', [6_022, 3_043], { recall: 0.11605, ndcg: 0.11757 }, 4e-5],
  ] as const)('%s, full ranking', async (_, folder, shape, published, tolerance) => {
    const train = await matrix(lines(`${folder}/train.txt.gz`).map(numbers), shape);
    const test = await matrix(lines(`${folder}/test.txt.gz`).map(numbers), shape);
    const model = await new Popularity().fit(train);
    const { values, users } = await evaluate(model, { train, test }, { metrics: ['recall', 'ndcg'], k: 20 });
    expect(users).toBe(shape[0]);
    expect(Math.abs(values['recall@20']! - published.recall)).toBeLessThan(tolerance);
    expect(Math.abs(values['ndcg@20']! - published.ndcg)).toBeLessThan(tolerance);
  });

  it('ML-1M, NCF protocol with given negatives', async () => {
    const shape = [6_040, 3_706] as const;
    const ncf = (file: string) => lines(`ml-1m/ncf/ml-1m.${file}.gz`);
    const train = await matrix(ncf('train.tsv').map(numbers), shape);
    const test = await matrix(
      ncf('test.rating').map((line) => numbers(line).slice(0, 2)),
      shape,
    );
    const given = ncf('test.negative').map((line) => [Number(/\d+/.exec(line)), ...numbers(line).slice(1)]);
    const candidates = await matrix(given, shape);
    const model = await new Popularity().fit(train);
    const options = { metrics: ['hitRate', 'ndcg'], k: 10, protocol: { candidates }, ties: 'against' } as const;
    const { values } = await evaluate(model, { train, test }, options);
    expect(Math.abs(values['hitRate@10']! - 0.4531)).toBeLessThan(1e-4);
    // The data's note: which of some rare items is which could not be told; 10 of the 6,040 test items are such.
    expect(Math.abs(values['ndcg@10']! - 0.2542)).toBeLessThan(2e-4);
  });
});
