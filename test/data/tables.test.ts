import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { DuckDBInstance } from '@duckdb/node-api';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { Interactions } from '../../lib/index.js';
import { triplets } from './triplets.js';

let directory: string;
const path = (name: string) => join(directory, name);
const write = (name: string, content: string | Buffer) => {
  writeFileSync(path(name), content);
  return path(name);
};
const columns = { user: 'userId', item: 'itemId', value: 'rating' };

beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), "topknot 'data' "));
});
afterAll(() => rmSync(directory, { recursive: true }));

async function parquet(name: string, select: string) {
  const instance = await DuckDBInstance.create(':memory:');
  const connection = await instance.connect();
  await connection.run(`COPY (${select}) TO '${path(name).replaceAll("'", "''")}' (FORMAT parquet)`);
  connection.closeSync();
  return path(name);
}

const csv = 'userId,itemId,rating\n7,b,5\n10,a,3.5\n7,a,1\n';
const lines =
  '{"userId":7,"itemId":"b","rating":5}\n{"userId":10,"itemId":"a","rating":3.5}\n{"userId":7,"itemId":"a","rating":1}\n';
const read = [
  { user: 7, item: 'b', value: 5 },
  { user: 7, item: 'a', value: 1 },
  { user: 10, item: 'a', value: 3.5 },
];

describe('formats', () => {
  it.each([
    ['ratings.csv', csv],
    ['ratings.tsv', csv.replaceAll(',', '\t')],
    ['ratings.csv.gz', gzipSync(csv)],
    ['ratings.jsonl', lines],
    ['ratings.ndjson', lines],
    ['ratings.jsonl.gz', gzipSync(lines)],
  ])('%s', async (name, content) => {
    const data = await Interactions.read(write(name, content), columns);
    expect(await triplets(data)).toEqual(read);
    expect([...data.users]).toEqual([7, 10]); // in the order of the ids
    expect([...data.items]).toEqual(['a', 'b']);
  });

  it('Parquet', async () => {
    const file = await parquet(
      'ratings.parquet',
      `FROM (VALUES (7, 'b', 5), (10, 'a', 3.5), (7, 'a', 1)) t(userId, itemId, rating)`,
    );
    expect(await triplets(await Interactions.read(file, columns))).toEqual(read);
  });

  it('several files in their order, and names with wildcards and quotes', async () => {
    const one = write("it's [1]*?.csv", csv);
    const two = write('two.csv', 'userId,itemId,rating\n7,b,2\n');
    write("it's 1xy.csv", 'userId,itemId,rating\n99,b,2\n');
    expect((await triplets(await Interactions.read([one, two], columns)))[1]).toEqual({ user: 7, item: 'b', value: 2 });
    expect((await triplets(await Interactions.read([two, one], columns)))[0]).toEqual({ user: 7, item: 'b', value: 5 });
  });

  it('a delimiter and columns without a header', async () => {
    const file = write('ratings.dat', '1::10::5::978300760\n2::10::3::978302109\n');
    const options = { format: 'csv', delimiter: '::', columns: ['u', 'i', 'r', 't'] } as const;
    const data = await Interactions.read(file, { ...options, user: 'u', item: 'i', value: 'r', time: 't' });
    expect(await triplets(data)).toEqual([
      { user: 1, item: 10, value: 5, time: 978300760 },
      { user: 2, item: 10, value: 3, time: 978302109 },
    ]);
  });

  it('SQL', async () => {
    const sql = `SELECT itemId, userId AS "the ""user""", count(*) AS n FROM '${write('q.csv', csv).replaceAll("'", "''")}' GROUP BY ALL; `;
    const data = await Interactions.query(sql, { user: 'the "user"', item: 'itemId', value: 'n' });
    expect(data.size).toBe(3);
    const commented = await Interactions.query('SELECT 1 AS u, 2 AS i -- no more', { user: 'u', item: 'i' });
    expect(await triplets(commented)).toEqual([{ user: 1, item: 2, value: 1 }]);
  });

  it('more rows than a chunk, in their order', async () => {
    const sql = 'SELECT range % 7 AS u, range // 7 AS i, range AS v FROM range(50000)';
    const data = await Interactions.query(sql, { user: 'u', item: 'i', value: 'v' });
    const items = Int32Array.from(
      (await triplets(data)).filter((t) => t.user === 3),
      (t) => t.item as number,
    );
    expect(items).toEqual(Int32Array.from({ length: 7143 }, (_, j) => j));
    expect((await triplets(data)).every((t) => t.value === (t.item as number) * 7 + (t.user as number))).toBe(true);
  });
});

describe('ids', () => {
  const idsOf = async (sql: string, options = {}) => [
    ...(await Interactions.query(sql, { user: 'u', item: 'i', ...options })).users,
  ];

  it.each([
    ['INTEGER', 'SELECT unnest([3, -1, 20])::INTEGER AS u, 1 AS i', [-1, 3, 20]],
    ['UBIGINT', "SELECT unnest(['18446744073709551615', '1'])::UBIGINT AS u, 1 AS i", [1n, 2n ** 64n - 1n]],
    [
      'BIGINT beyond 2^53',
      'SELECT unnest([9007199254740993, 9007199254740992]) AS u, 1 AS i',
      [2n ** 53n, 2n ** 53n + 1n],
    ],
    [
      'HUGEINT',
      "SELECT unnest(['-170141183460469231731687303715884105727'])::HUGEINT AS u, 1 AS i",
      [-(2n ** 127n) + 1n],
    ],
    ['DOUBLE', 'SELECT unnest([0.5, -2.25]) ::DOUBLE AS u, 1 AS i', [-2.25, 0.5]],
    [
      'VARCHAR',
      "SELECT unnest(['é', '', 'it''s', 'a\nb', 'longer than twelve bytes', '🦉', '07']) AS u, 1 AS i",
      ['', '07', 'a\nb', "it's", 'longer than twelve bytes', 'é', '🦉'],
    ],
    ['ENUM', "SELECT unnest(['y', 'x'])::ENUM('y', 'x') AS u, 1 AS i", ['x', 'y']],
    [
      'UUID',
      "SELECT '0f8fad5b-d9cb-469f-a165-70867728950e'::UUID AS u, 1 AS i",
      ['0f8fad5b-d9cb-469f-a165-70867728950e'],
    ],
  ])('%s', async (_name, sql, ids) => {
    expect(await idsOf(sql)).toEqual(ids);
  });

  it('of a type that is asked for', async () => {
    expect(await idsOf('SELECT 7 AS u, 1 AS i', { userType: 'string' })).toEqual(['7']);
    expect(await idsOf('SELECT 7 AS u, 1 AS i', { userType: 'bigint' })).toEqual([7n]);
    const error = { code: 'ERR_RANGE', message: expect.stringMatching(/^userType: /) };
    await expect(
      idsOf('SELECT 2::BIGINT ** 60 AS u, 1 AS i UNION SELECT 0.5, 1', { userType: 'bigint' }),
    ).rejects.toMatchObject(error);
    await expect(idsOf('SELECT 9007199254740993 AS u, 1 AS i', { userType: 'number' })).rejects.toMatchObject(error);
    await expect(idsOf("SELECT 'x' AS u, 1 AS i", { userType: 'number' })).rejects.toMatchObject(error);
  });

  it('of a CSV file are numbers only when that loses nothing', async () => {
    const ids = async (list: string[], options = {}) => [
      ...(
        await Interactions.read(write('ids.csv', `u,i\n${list.map((id) => `${id},1\n`).join('')}`), {
          user: 'u',
          item: 'i',
          ...options,
        })
      ).users,
    ];
    expect(await ids(['10', '9'])).toEqual([9, 10]);
    expect(await ids(['10', '9'], { userType: 'string' })).toEqual(['10', '9']);
    expect(await ids(['007', '7'])).toEqual(['007', '7']);
    expect(await ids(['7', 'x'])).toEqual(['7', 'x']);
    expect(await ids(['9007199254740993', '1'])).toEqual([1n, 2n ** 53n + 1n]);
    expect(await ids(['2024-01-01', '2024-01-02T00:00'])).toEqual(['2024-01-01', '2024-01-02T00:00']);
    expect(await ids(['"it\'s ""a""\nb"'])).toEqual(['it\'s "a"\nb']);
  });

  it('of a JSON file stay text where they are text', async () => {
    const file = write('dates.jsonl', '{"u":"2024-01-01","i":"0F8FAD5B-D9CB-469F-A165-70867728950E"}\n');
    const data = await Interactions.read(file, { user: 'u', item: 'i' });
    expect([[...data.users], [...data.items]]).toEqual([['2024-01-01'], ['0F8FAD5B-D9CB-469F-A165-70867728950E']]);
  });

  it('given ones keep their rows', async () => {
    const train = await Interactions.fromArrays({ users: [10, 7, 3], items: ['z', 'a', 'z'] });
    const options = { ...columns, users: train.users, items: train.items, invalid: 'drop' } as const;
    const data = await Interactions.read(write('test.csv', csv), options);
    expect(data.users).toBe(train.users);
    expect(await data.userRows.data()).toEqual(Int32Array.of(0, 1));
    expect(data.report.dropped.unknownItem).toBe(1);
  });
});

describe('cleaning', () => {
  it('counts missing and invalid ones by reason', async () => {
    const sql = `SELECT * FROM (VALUES (1, 'a', 1.0::DOUBLE, 1), (NULL, 'a', 1, 1), (1, NULL, 1, 1), (1, 'b', NULL, 1),
      (1, 'c', 1, NULL), (1, 'd', 'nan', 1), (1, 'e', 'inf', 1), (1, 'f', 1e300, 1), (1, 'g', -1, 1)) t(u, i, v, t)`;
    const options = { user: 'u', item: 'i', value: 'v', time: 't', minValue: 0 };
    const data = await Interactions.query(sql, { ...options, invalid: 'drop' });
    expect(data.report).toMatchObject({ read: 9, kept: 1 });
    expect(data.report.dropped).toMatchObject({
      missingUser: 1,
      missingItem: 1,
      missingValue: 1,
      missingTime: 1,
      notFinite: 3,
      outOfRange: 1,
    });
    await expect(Interactions.query(sql, options)).rejects.toMatchObject({
      code: 'ERR_VALUE',
      message: expect.stringMatching(/^interaction 1 has no user/),
    });
  });

  it('reads timestamps and dates as milliseconds', async () => {
    const sql = "SELECT 1 AS u, 1 AS i, TIMESTAMP '1970-01-01 00:00:01.5' AS t";
    expect((await triplets(await Interactions.query(sql, { user: 'u', item: 'i', time: 't' })))[0].time).toBe(1500);
    const day = "SELECT 1 AS u, 1 AS i, DATE '1970-01-02' AS t";
    expect((await triplets(await Interactions.query(day, { user: 'u', item: 'i', time: 't' })))[0].time).toBe(
      86_400_000,
    );
  });

  it('drops text among numbers only when asked', async () => {
    const file = write('na.csv', 'userId,itemId,rating\n1,1,5\n1,2,N/A\n');
    const data = await Interactions.read(file, { ...columns, invalid: 'drop' });
    expect([data.size, data.report.dropped.missingValue]).toEqual([1, 1]);
    await expect(Interactions.read(file, columns)).rejects.toMatchObject({
      code: 'ERR_FORMAT',
      message: expect.stringMatching(/^paths: Conversion Error.*'N\/A'/),
    });
  });

  it('empty files and results', async () => {
    const data = await Interactions.query('SELECT 1 AS u, 2 AS i WHERE false', { user: 'u', item: 'i' });
    expect([data.size, data.users.size]).toEqual([0, 0]);
    expect((await Interactions.read(write('none.csv', 'userId,itemId,rating\n'), columns)).size).toBe(0);
  });
});

describe('bad input', () => {
  it.each([
    [
      'no such file',
      () => Interactions.read(path('absent.csv'), columns),
      'ERR_IO',
      /^paths: cannot read .*no such file/,
    ],
    ['no path', () => Interactions.read([], columns), 'ERR_ARGUMENT', /^paths: /],
    [
      'no such column',
      () => Interactions.read(write('c.csv', csv), { ...columns, item: 'bookId' }),
      'ERR_ARGUMENT',
      /^item: there is no column 'bookId'/,
    ],
    [
      'no column name',
      () => Interactions.read(write('c.csv', csv), {} as never),
      'ERR_ARGUMENT',
      /^user: expected the name/,
    ],
    ['unknown format', () => Interactions.read(write('c.xls', csv), columns), 'ERR_ARGUMENT', /^format: /],
    ['no Parquet', () => Interactions.read(write('c.parquet', csv), columns), 'ERR_FORMAT', /^paths: /],
    ['no JSON', () => Interactions.read(write('c.jsonl', '{"userId": 1,\n}{'), columns), 'ERR_FORMAT', /^paths: /],
    [
      'a late bad value',
      () => Interactions.read(write('late.csv', `userId,itemId,rating\n${'1,1,1\n'.repeat(30_000)}1,1,x\n`), columns),
      'ERR_FORMAT',
      /^paths: /,
    ],
    ['no SQL', () => Interactions.query('SELEC 1', { user: 'u', item: 'i' }), 'ERR_ARGUMENT', /^sql: Parser Error/],
    [
      'no table',
      () => Interactions.query('SELECT * FROM absent', { user: 'u', item: 'i' }),
      'ERR_ARGUMENT',
      /^sql: Catalog Error/,
    ],
    [
      'a list as id',
      () => Interactions.query('SELECT [1] AS u, 1 AS i', { user: 'u', item: 'i' }),
      'ERR_ARGUMENT',
      /^user: expected a column of numbers or text/,
    ],
    [
      'text as time',
      () => Interactions.query("SELECT 1 AS u, 1 AS i, 'x' AS t", { user: 'u', item: 'i', time: 't' }),
      'ERR_ARGUMENT',
      /^time: /,
    ],
  ])('%s', async (_name, made, code, message) => {
    await expect(made()).rejects.toMatchObject({ code, message: expect.stringMatching(message) });
  });

  it('stops on abort', async () => {
    const signal = AbortSignal.timeout(50);
    const made = Interactions.query('SELECT a.range AS u, b.range AS i FROM range(100000) a, range(100000) b', {
      user: 'u',
      item: 'i',
      signal,
    });
    await expect(made).rejects.toMatchObject({ name: 'TimeoutError' });
  });

  it('names the package when DuckDB is absent', async () => {
    vi.doMock('@duckdb/node-api', () => {
      throw new Error('absent');
    });
    const error = { code: 'ERR_DEPENDENCY', message: expect.stringMatching(/npm install @duckdb\/node-api/) };
    await expect(Interactions.query('SELECT 1', { user: 'u', item: 'i' })).rejects.toMatchObject(error);
    vi.doUnmock('@duckdb/node-api');
  });
});
