import type { DuckDBConnection, DuckDBInstance } from '@duckdb/node-api';
import { expected, TopknotError } from '../errors.js';
import { threads } from '../runtime.js';

/** Text as an SQL string. */
export const sqlText = (text: string): string => `'${text.replaceAll("'", "''")}'`;

/** Text as an SQL name. */
export const sqlName = (name: string): string => `"${name.replaceAll('"', '""')}"`;

/** A path as an SQL string that stands for that very file, whatever wildcards its name holds. */
export const sqlPath = (path: string): string => sqlText(path.replaceAll(/[*?[]/g, '[$&]'));

/** Up to 2,048 rows of a result. */
export interface Chunk {
  /** A column of numbers as DuckDB keeps it, valid while the chunk is taken. */
  numbers(column: number): ArrayLike<number>;
  /** A column of 64-bit integers, likewise; unsigned ones as the signed ones of the same bits. */
  bits(column: number): BigInt64Array;
  /** A column of any type. */
  values(column: number): unknown[];
}

const codes: readonly [prefix: RegExp, code: 'ERR_ARGUMENT' | 'ERR_IO' | 'ERR_FORMAT' | 'ERR_MEMORY'][] = [
  [/^(Parser|Binder|Catalog|Not implemented|Permission) Error/i, 'ERR_ARGUMENT'],
  [/^(IO|HTTP) Error/i, 'ERR_IO'],
  [/^Out of Memory Error/i, 'ERR_MEMORY'],
  [/^(Invalid Input|Conversion|Out of Range|Serialization) Error/i, 'ERR_FORMAT'],
];

/**
 * An in-memory DuckDB of its own for one ingestion. `argument` names what the statements came from in errors.
 * @internal
 */
export class Database implements AsyncDisposable {
  readonly #instance: DuckDBInstance;
  readonly #connection: DuckDBConnection;
  readonly #argument: string;
  readonly #signal: AbortSignal | undefined;
  readonly #interrupt = () => this.#connection.interrupt();

  private constructor(
    instance: DuckDBInstance,
    connection: DuckDBConnection,
    argument: string,
    signal: AbortSignal | undefined,
  ) {
    this.#instance = instance;
    this.#connection = connection;
    this.#argument = argument;
    this.#signal = signal;
    signal?.addEventListener('abort', this.#interrupt);
  }

  /** @throws ERR_DEPENDENCY */
  static async open(argument: string, signal?: AbortSignal): Promise<Database> {
    signal?.throwIfAborted();
    const { DuckDBInstance } = await import('@duckdb/node-api').catch((cause) => {
      throw new TopknotError(
        'ERR_DEPENDENCY',
        'Interactions.read and Interactions.query need DuckDB: npm install @duckdb/node-api',
        { cause },
      );
    });
    const instance = await DuckDBInstance.create(':memory:', { threads: String(threads()) });
    const database = new Database(instance, await instance.connect(), argument, signal);
    // A larger buffer lets DuckDB's threads run ahead of the thread that fetches.
    await database.run("SET streaming_buffer_size = '64MB'");
    return database;
  }

  async run(sql: string): Promise<void> {
    await this.#guarded(() => this.#connection.run(sql));
  }

  /** All rows of a small result. */
  async rows(sql: string): Promise<unknown[][]> {
    const reader = await this.#guarded(() => this.#connection.runAndReadAll(sql));
    return reader.getRowsJS() as unknown[][];
  }

  /** Streams a result chunk by chunk. */
  async stream(sql: string, take: (chunk: Chunk) => void): Promise<void> {
    const result = await this.#guarded(() => this.#connection.stream(sql));
    let next = result.fetchChunk();
    for (;;) {
      const chunk = await this.#guarded(() => next);
      if (!chunk || chunk.rowCount === 0) return;
      next = result.fetchChunk(); // DuckDB works on the next one while this one is taken
      next.catch(() => {}); // if `take` throws, nobody waits for it
      take({
        numbers: (column) => (chunk.getColumnVector(column) as unknown as { items: Float64Array }).items,
        bits: (column) => {
          const { items } = chunk.getColumnVector(column) as unknown as { items: BigUint64Array };
          return new BigInt64Array(items.buffer, items.byteOffset, items.length);
        },
        values: (column) => chunk.getColumnValues(column) as unknown[],
      });
    }
  }

  /** DuckDB's errors as ours: its own text, under the name of the argument. */
  async #guarded<T>(body: () => Promise<T>): Promise<T> {
    this.#signal?.throwIfAborted();
    try {
      return await body();
    } catch (cause) {
      this.#signal?.throwIfAborted();
      const text = cause instanceof Error ? cause.message : String(cause);
      const code = codes.find(([prefix]) => prefix.test(text))?.[1] ?? 'ERR_INTERNAL';
      throw new TopknotError(code, `${this.#argument}: ${text}`, { cause });
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#signal?.removeEventListener('abort', this.#interrupt);
    // Closing frees what is left on this thread; dropping the tables frees most of it on DuckDB's.
    try {
      const tables = await this.#connection.runAndReadAll('SELECT table_name FROM duckdb_tables() WHERE temporary');
      for (const [name] of tables.getRows()) await this.#connection.run(`DROP TABLE ${sqlName(String(name))} CASCADE`);
    } catch {} // an interrupted statement may still hold them
    this.#connection.closeSync();
    this.#instance.closeSync();
  }
}

/** Throws ERR_ARGUMENT unless `name` is the name of a column; `argument` is the option it came from. @internal */
export function checkColumnName(argument: string, name: unknown): asserts name is string {
  if (typeof name !== 'string' || name === '') expected(argument, 'the name of a column', name);
}
