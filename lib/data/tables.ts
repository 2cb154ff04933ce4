import { access, constants } from 'node:fs/promises';
import { describe, expected, TopknotError } from '../errors.js';
import { runJob } from '../job.js';
import { native } from '../native.js';
import { Slices } from '../slices.js';
import { Tensor } from '../tensor.js';
import { type CleaningOptions, type RawTriplets, reasons, rowsAmong } from './cleaning.js';
import { Column } from './column.js';
import { checkColumnName, Database, sqlName, sqlPath, sqlText } from './duckdb.js';
import { type Id, Ids } from './ids.js';

/** The JavaScript type of a side's ids. */
export type IdType = 'number' | 'bigint' | 'string';

/** Which columns of a table hold what. */
export interface TableColumns {
  user: string;
  item: string;
  /** A column of numbers. Without it every interaction counts 1. */
  value?: string | undefined;
  /** A column of numbers, in any unit, or of dates or timestamps (read as milliseconds since 1970). */
  time?: string | undefined;
  /**
   * The type of the users' ids. By default that of the column: text is 'string', integers and floats are 'number',
   * integers beyond ±(2^53 - 1) make it 'bigint'. A CSV file has no types: there, ids are numbers when all are whole
   * numbers in their plain form ('7', not '07'), and strings otherwise.
   */
  userType?: IdType | undefined;
  /** The type of the items' ids, likewise. */
  itemType?: IdType | undefined;
}

/** How to read files. */
export interface FileOptions {
  /** By default after the extension: .csv, .tsv, .txt; .parquet; .json, .jsonl, .ndjson; each also with .gz. */
  format?: 'csv' | 'parquet' | 'json' | undefined;
  /** Between the fields of a CSV file, up to four bytes; found out unless given. */
  delimiter?: string | undefined;
  /** The columns of a CSV file without a header line. */
  columns?: readonly string[] | undefined;
}

type Format = NonNullable<FileOptions['format']>;

/** @internal */
export async function fromFiles<U extends Id, I extends Id>(
  paths: string | readonly string[],
  options: TableColumns & FileOptions & CleaningOptions<U, I>,
): Promise<RawTriplets<U, I>> {
  checkTable(options);
  const list = typeof paths === 'string' ? [paths] : paths;
  if (!Array.isArray(list) || list.length === 0 || !list.every((p) => typeof p === 'string' && p !== ''))
    expected('paths', 'a path or an array of paths', paths);
  const formats = new Set(list.map((path) => options.format ?? formatOf(path)));
  if (formats.size > 1) expected('paths', 'files of one format', [...formats].join(', '));
  const [format] = formats as Set<Format>;
  if (!['csv', 'parquet', 'json'].includes(format as string)) expected('format', "'csv', 'parquet' or 'json'", format);
  for (const path of list) {
    await access(path, constants.R_OK).catch((cause: NodeJS.ErrnoException) => {
      const why = cause.code === 'ENOENT' ? 'no such file' : cause.message;
      throw new TopknotError('ERR_IO', `paths: cannot read '${path}': ${why}`, { cause });
    });
  }
  await using database = await Database.open('paths', options.signal);
  const files = `[${list.map(sqlPath).join(', ')}]`;
  const source = await fileRelation(database, format as Format, files, options);
  // Parquet is cheap to scan again, text is not.
  const kept = format === 'parquet' ? 'VIEW' : 'TABLE';
  await database.run(`CREATE TEMP ${kept} source AS SELECT ${selection(options)} FROM ${source}`);
  return await fromSource(database, options, format === 'csv');
}

/** @internal */
export async function fromSql<U extends Id, I extends Id>(
  sql: string,
  options: TableColumns & CleaningOptions<U, I>,
): Promise<RawTriplets<U, I>> {
  checkTable(options);
  if (typeof sql !== 'string' || sql.trim() === '') expected('sql', 'a SELECT statement', sql);
  await using database = await Database.open('sql', options.signal);
  await database.run(`CREATE TEMP TABLE result AS (${sql.replace(/[;\s]+$/, '')}\n)`);
  await checkColumns(database, 'result', options);
  await database.run(`CREATE TEMP VIEW source AS SELECT ${selection(options)} FROM result`);
  return await fromSource(database, options, false);
}

function checkTable(options: TableColumns & FileOptions): void {
  for (const column of ['user', 'item', 'value', 'time'] as const)
    if (column === 'user' || column === 'item' || options[column] !== undefined)
      checkColumnName(column, options[column]);
  for (const name of ['userType', 'itemType'] as const)
    if (![undefined, 'number', 'bigint', 'string'].includes(options[name]))
      expected(name, "'number', 'bigint' or 'string'", options[name]);
}

function formatOf(path: string): Format | undefined {
  const extension = /\.([a-z]+)(\.gz)?$/i.exec(path)?.[1]?.toLowerCase() ?? '';
  if (['csv', 'tsv', 'txt'].includes(extension)) return 'csv';
  if (['json', 'jsonl', 'ndjson'].includes(extension)) return 'json';
  return extension === 'parquet' ? 'parquet' : undefined;
}

/** The wanted columns under names of our own. */
function selection(columns: TableColumns): string {
  const { user, item, value, time } = columns;
  return Object.entries({ user, item, value, time })
    .filter(([, name]) => name !== undefined)
    .map(([role, name]) => `${sqlName(name as string)} AS "${role}"`)
    .join(', ');
}

/** Name to type of a relation's columns. */
async function columnTypes(database: Database, relation: string): Promise<Map<string, string>> {
  const rows = await database.rows(`DESCRIBE SELECT * FROM ${relation}`);
  return new Map(rows.map(([name, type]) => [String(name), String(type)]));
}

/** The types of the columns that are wanted, by the relation's own names: SQL names know no case. */
async function checkColumns(
  database: Database,
  relation: string,
  options: TableColumns,
): Promise<{ name: string; type: string; isId: boolean }[]> {
  const types = await columnTypes(database, relation);
  const found = new Map<string, { name: string; type: string; isId: boolean }>();
  for (const role of ['user', 'item', 'value', 'time'] as const) {
    const wanted = options[role];
    if (wanted === undefined) continue;
    const name = [...types.keys()].find((n) => n === wanted || n.toLowerCase() === wanted.toLowerCase());
    if (name === undefined)
      throw new TopknotError(
        'ERR_ARGUMENT',
        `${role}: there is no column ${describe(wanted)}; the columns are ${[...types.keys()].join(', ')}`,
      );
    const isId = role === 'user' || role === 'item' || found.get(name)?.isId === true;
    found.set(name, { name, type: types.get(name) as string, isId });
  }
  return [...found.values()];
}

/** The table function that reads the files, after a look at their columns. */
async function fileRelation(
  database: Database,
  format: Format,
  files: string,
  options: TableColumns & FileOptions,
): Promise<string> {
  if (format === 'parquet') {
    await checkColumns(database, `read_parquet(${files})`, options);
    return `read_parquet(${files})`;
  }
  if (format === 'csv') {
    let settings = '';
    if (options.delimiter !== undefined) settings += `, delim = ${sqlText(options.delimiter)}`;
    if (options.columns) settings += `, header = false, names = [${options.columns.map(sqlText).join(', ')}]`;
    const columns = await checkColumns(database, `read_csv(${files}${settings})`, options);
    // Ids stay text: '007' is not 7.
    const types = columns.filter((c) => c.isId).map((c) => `${sqlText(c.name)}: 'VARCHAR'`);
    return `read_csv(${files}${settings}, types = {${types.join(', ')}})`;
  }
  const columns = await checkColumns(database, `read_json(${files})`, options);
  // Strings that look like dates or UUIDs are still the caller's ids.
  const types = columns.map(({ name, type, isId }) => {
    const text = isId && /^(DATE|TIME|UUID)/.test(type);
    return `${sqlText(name)}: ${sqlText(text ? 'VARCHAR' : type)}`;
  });
  return `read_json(${files}, columns = {${types.join(', ')}})`;
}

type Side = 'user' | 'item';

/** How one side's ids are read. */
interface IdPlan {
  /** SQL for the id, from a row of the source. */
  id: string;
  /** SQL for 64 bits that tell this id from every other of its side. */
  key: (id: string) => string;
  kind: 'integer' | 'float' | 'text';
}

const exactKey = (id: string) => `${id}::BIGINT`;
const hashKey = (id: string) => `hash(${id})::UBIGINT`;

function idPlan(side: Side, type: string): IdPlan {
  const id = `"${side}"`;
  if (type === 'UBIGINT') return { id, key: (x) => x, kind: 'integer' };
  if (/^U?(TINYINT|SMALLINT|INTEGER|BIGINT)$/.test(type)) return { id, key: exactKey, kind: 'integer' };
  if (/^(U?HUGEINT|DECIMAL\(\d+,0\))$/.test(type)) return { id: `${id}::HUGEINT`, key: hashKey, kind: 'integer' };
  if (/^(FLOAT|DOUBLE|DECIMAL\()/.test(type))
    return { id: `CASE WHEN isfinite(${id}::DOUBLE) THEN ${id}::DOUBLE + 0 END`, key: hashKey, kind: 'float' };
  if (/^(VARCHAR|ENUM\(|UUID$|DATE$|TIME|BOOLEAN$)/.test(type))
    return { id: `${id}::VARCHAR`, key: hashKey, kind: 'text' };
  throw new TopknotError('ERR_ARGUMENT', `${side}: expected a column of numbers or text but it is ${type}`);
}

/** One side's distinct ids and their keys, in the order of the ids. */
interface KnownIds<T extends Id> {
  ids: T[];
  keys: Tensor<'int64'>;
  /** SQL for the key of a row of the source. */
  key: string;
}

async function knownIds<T extends Id>(
  database: Database,
  side: Side,
  type: string,
  untyped: boolean,
  wanted: IdType | undefined,
  signal: AbortSignal | undefined,
): Promise<KnownIds<T>> {
  let plan = idPlan(side, type);
  const table = `${side}_ids`;
  await database.run(
    `CREATE TEMP TABLE ${table} AS SELECT * FROM (SELECT DISTINCT ${plan.id} AS id FROM source) WHERE id IS NOT NULL`,
  );
  if (untyped && wanted !== 'string') {
    const plain = `SELECT count(*) > 0 AND bool_and(coalesce(TRY_CAST(id AS BIGINT)::VARCHAR = id, false)) FROM ${table}`;
    if ((await database.rows(plain))[0]?.[0]) {
      plan = { id: `TRY_CAST("${side}" AS BIGINT)`, key: exactKey, kind: 'integer' };
      await database.run(`ALTER TABLE ${table} ALTER id TYPE BIGINT`);
    }
  }
  if (plan.key === hashKey) {
    // Two ids with one hash: at a million ids, once in 37 million tables. Another text to hash tells them apart.
    for (let salt = ''; !(await distinctKeys(database, table, plan)); salt += '#')
      plan = { ...plan, key: (id) => hashKey(`${id}::VARCHAR || '${salt}'`) };
  }
  const ids: unknown[] = [];
  const keys = new Column('int64');
  await database.stream(`SELECT id, ${plan.key('id')} FROM ${table} ORDER BY id`, (chunk) => {
    for (const id of chunk.values(0)) ids.push(id);
    keys.append(chunk.bits(1));
  });
  return {
    ids: await typedIds<T>(side, ids, plan.kind, wanted, signal),
    keys: await keys.finish(signal),
    key: plan.key(plan.id),
  };
}

async function distinctKeys(database: Database, table: string, plan: IdPlan): Promise<boolean> {
  return (await database.rows(`SELECT count(DISTINCT ${plan.key('id')}) = count(*) FROM ${table}`))[0]?.[0] as boolean;
}

/** Ids as DuckDB gives them, all as the type that is wanted or, without a wish, as the one that loses nothing. */
async function typedIds<T extends Id>(
  side: Side,
  ids: unknown[],
  kind: IdPlan['kind'],
  wanted: IdType | undefined,
  signal: AbortSignal | undefined,
): Promise<T[]> {
  const slices = new Slices(signal);
  const safe = (id: unknown) =>
    typeof id === 'number' || (typeof id === 'bigint' && BigInt.asIntN(54, id) === id && id !== -(2n ** 53n));
  let type = wanted ?? (kind === 'text' ? 'string' : 'number');
  for (const id of ids) {
    if (kind !== 'integer' || wanted) break;
    if (!safe(id)) type = 'bigint';
    if (slices.due()) await slices.next();
  }
  const refuse = (id: unknown): never => {
    throw new TopknotError('ERR_RANGE', `${side}Type: the id ${describe(id)} cannot be a ${type} without loss`);
  };
  for (let i = 0; i < ids.length; i++) {
    const id = ids[i];
    if (type === 'string') ids[i] = String(id);
    else if (kind === 'text') refuse(id);
    else if (type === 'number') ids[i] = safe(id) ? Number(id) : refuse(id);
    else ids[i] = typeof id === 'bigint' || Number.isInteger(id) ? BigInt(id as number) : refuse(id);
    if (slices.due()) await slices.next();
  }
  return ids as T[];
}

/** Reads the view or table `source`, whose columns are user, item, value and time. */
async function fromSource<U extends Id, I extends Id>(
  database: Database,
  options: TableColumns & CleaningOptions<U, I>,
  untyped: boolean,
): Promise<RawTriplets<U, I>> {
  const { signal } = options;
  const types = await columnTypes(database, 'source');
  const type = (column: string) => types.get(column) as string;
  const user = await knownIds<U>(
    database,
    'user',
    type('user'),
    untyped,
    wantedType(options.users, options.userType),
    signal,
  );
  const item = await knownIds<I>(
    database,
    'item',
    type('item'),
    untyped,
    wantedType(options.items, options.itemType),
    signal,
  );

  const cast = options.invalid === 'drop' ? 'TRY_CAST' : 'CAST';
  const value = options.value === undefined ? undefined : valueSql(type('value'), cast, untyped);
  const time = options.time === undefined ? undefined : timeSql(type('time'), cast, untyped);
  const missing = [
    `WHEN ${user.key} IS NULL OR "user" IS NULL THEN ${reasons.missingUser}`,
    `WHEN ${item.key} IS NULL OR "item" IS NULL THEN ${reasons.missingItem}`,
    value && `WHEN ${value} IS NULL THEN ${reasons.missingValue}`,
    time && `WHEN ${time} IS NULL THEN ${reasons.missingTime}`,
  ];
  const userKeys = new Column('int64');
  const itemKeys = new Column('int64');
  const why = new Column('int8');
  const values = value ? new Column('float32') : undefined;
  const times = time ? new Column('float64') : undefined;
  const selected = [user.key, item.key, `(CASE ${missing.filter(Boolean).join(' ')} ELSE 0 END)::TINYINT`];
  if (value) selected.push(value);
  if (time) selected.push(time);
  await database.stream(`SELECT ${selected.join(', ')} FROM source`, (chunk) => {
    userKeys.append(chunk.bits(0));
    itemKeys.append(chunk.bits(1));
    why.append(chunk.numbers(2));
    values?.append(chunk.numbers(3));
    times?.append(chunk.numbers(value ? 4 : 3));
  });
  const users = await sideRows(user, await userKeys.finish(signal), options.users, signal);
  const items = await sideRows(item, await itemKeys.finish(signal), options.items, signal);
  return {
    users: users.rows,
    items: items.rows,
    values: await values?.finish(signal),
    times: await times?.finish(signal),
    reasons: await why.finish(signal),
    userIds: users.ids,
    itemIds: items.ids,
  };
}

function wantedType(given: Ids | undefined, wanted: IdType | undefined): IdType | undefined {
  return given?.size ? (typeof given.at(0) as IdType) : wanted;
}

/** FLOAT stays so; other numbers become DOUBLE and are rounded once, as they are taken. Text of a CSV file is parsed. */
function valueSql(type: string, cast: string, untyped: boolean): string {
  if (/^(FLOAT|DOUBLE)$/.test(type)) return '"value"';
  if (/INT|DECIMAL|BOOLEAN/.test(type) || (untyped && type === 'VARCHAR')) return `${cast}("value" AS DOUBLE)`;
  throw new TopknotError('ERR_ARGUMENT', `value: expected a column of numbers but it is ${type}`);
}

function timeSql(type: string, cast: string, untyped: boolean): string {
  if (/^(DATE|TIMESTAMP)/.test(type)) return 'epoch_us("time") / 1000.0::DOUBLE';
  if (/INT|DECIMAL|FLOAT|DOUBLE/.test(type) || (untyped && type === 'VARCHAR')) return `${cast}("time" AS DOUBLE)`;
  throw new TopknotError('ERR_ARGUMENT', `time: expected a column of numbers, dates or timestamps but it is ${type}`);
}

/** The row of each key: that of its id among the given ids, or its place among the known ones. */
async function sideRows<T extends Id>(
  known: KnownIds<T>,
  keys: Tensor<'int64'>,
  given: Ids<T> | undefined,
  signal: AbortSignal | undefined,
): Promise<{ rows: Tensor<'int32'>; ids: Ids<T> }> {
  const rows = new Tensor<'int32'>(
    await runJob('long', { signal }, (control) => native.rowsOfKeys(control, keys.handle, known.keys.handle)),
  );
  keys.dispose();
  known.keys.dispose();
  const ids = new Ids(known.ids);
  if (!given) return { rows, ids };
  const mapped = await rowsAmong(rows, ids, given, signal);
  rows.dispose();
  return { rows: mapped, ids: given };
}
