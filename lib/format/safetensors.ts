import { boolean, knownOptions } from '../check.js';
import type { DType } from '../dtype.js';
import { dtypeBytes } from '../dtype.js';
import { expected, TopknotError } from '../errors.js';
import { type JobOptions, runJob } from '../job.js';
import { native } from '../native.js';
import { Tensor } from '../tensor.js';

const names: Readonly<Record<DType, string>> = {
  float32: 'F32',
  float64: 'F64',
  float16: 'F16',
  bfloat16: 'BF16',
  int8: 'I8',
  uint8: 'U8',
  int32: 'I32',
  int64: 'I64',
  bool: 'BOOL',
};
const dtypes = new Map(Object.entries(names).map(([dtype, name]) => [name, dtype as DType]));

/** What a safetensors file holds. */
export interface Safetensors {
  tensors: Map<string, Tensor>;
  /** The free-form strings of the header's `__metadata__`. */
  metadata: Map<string, string>;
}

/**
 * Writes tensors to a safetensors file (https://github.com/huggingface/safetensors), readable by Python's package.
 * The file appears whole or not at all: it is written beside its place, flushed to the disk and renamed. Tensors on a GPU
 * are brought to the host for it.
 *
 * @throws ERR_IO when the disk is full or the folder cannot be written to; an earlier file of that name is unchanged.
 */
export async function writeSafetensors(
  path: string,
  tensors: Iterable<readonly [string, Tensor]>,
  options: JobOptions & { metadata?: Readonly<Record<string, string>> } = {},
): Promise<void> {
  knownOptions(options, ['metadata', 'signal', 'onProgress']);
  const given = checkedEntries(tensors, options.metadata);
  // Wide elements first, so that every tensor starts at a multiple of its element size.
  const entries = given.sort(([a, x], [b, y]) => dtypeBytes[y.dtype] - dtypeBytes[x.dtype] || (a < b ? -1 : 1));
  const header: [string, unknown][] = [];
  if (options.metadata) header.push(['__metadata__', options.metadata]);
  let end = 0;
  for (const [name, t] of entries) {
    const begin = end;
    end += t.size * dtypeBytes[t.dtype];
    header.push([name, { dtype: names[t.dtype], shape: t.shape, data_offsets: [begin, end] }]);
  }
  const json = JSON.stringify(Object.fromEntries(header));
  // The data starts at a multiple of 64 bytes, so that a mapped table's rows do not straddle cache lines.
  const bytes = new TextEncoder().encode(json.padEnd(json.length + ((64 - ((8 + Buffer.byteLength(json)) % 64)) % 64)));
  const onHost = entries.map(([, t]) => (t.device === 'cpu' ? t : t.to('cpu')));
  try {
    const handles = onHost.map((t) => t.handle);
    await runJob('long', options, (control) => native.safetensorsWrite(control, path, bytes, handles));
  } finally {
    for (const [i, [, t]] of entries.entries()) if (onHost[i] !== t) onHost[i]!.dispose();
  }
}

/** What can be read again: names that are there once and are not reserved, metadata of strings. */
function checkedEntries(
  tensors: Iterable<readonly [string, Tensor]>,
  metadata: unknown,
): (readonly [string, Tensor])[] {
  if (typeof (tensors as unknown as Partial<Iterable<unknown>>)?.[Symbol.iterator] !== 'function')
    expected('tensors', 'a Map or another iterable of [name, tensor]', tensors);
  const entries = [...tensors];
  const seen = new Set<string>();
  for (const entry of entries) {
    if (!Array.isArray(entry)) expected('tensors', 'entries [name, tensor]', entry);
    const [name, t] = entry as readonly [string, Tensor];
    if (typeof name !== 'string' || name === '__metadata__' || seen.has(name))
      expected('tensors', 'names that are strings, each once, other than __metadata__,', name);
    if (!(t instanceof Tensor)) expected(`tensors: '${name}'`, 'a Tensor', t);
    seen.add(name);
  }
  if (metadata !== undefined) {
    if (typeof metadata !== 'object' || metadata === null) expected('metadata', 'an object of strings', metadata);
    for (const [key, value] of Object.entries(metadata))
      if (typeof value !== 'string') expected(`metadata.${key}`, 'a string', value);
  }
  return entries;
}

/**
 * Reads a safetensors file, checking everything that it claims before any of it is used.
 *
 * @param options.names the tensors wanted; all unless given
 * @throws ERR_IO when it cannot be read; ERR_FORMAT when it is cut short, or its header is too large, is not JSON, or
 * describes tensors that overlap, leave gaps, lie outside the file or have a shape that does not fit their bytes.
 */
export async function readSafetensors(
  path: string,
  options: JobOptions & { names?: readonly string[] } = {},
): Promise<Safetensors> {
  knownOptions(options, ['names', 'signal', 'onProgress']);
  const { names, stamp, parts, metadata } = await openFile(path, options);
  const handles = await runJob('long', options, (control) => native.safetensorsRead(control, path, stamp, parts));
  return { tensors: new Map(names.map((name, i) => [name, new Tensor(handles[i]!)])), metadata };
}

/**
 * Opens a safetensors file whose tensors stay on the disk: their bytes are read when they are first used, and the system
 * may drop them again, so a table may be larger than memory. They are read-only, work wherever a tensor is taken, and do
 * not count in `memory()`. The header is checked as by `readSafetensors`, the file's size against it.
 *
 * Keep the file as it is while its tensors are in use: what another process writes into it appears in them, and if it is cut
 * short, using what is missing ends this process (SIGBUS). Replace it by writing a new one, as `writeSafetensors` does:
 * mapped tensors then go on with the old content. Operations on pages that are not in memory wait for the disk on the
 * threads of the pool.
 *
 * @param options.names the tensors wanted; all unless given
 * @param options.randomAccess true for tables whose rows are looked up here and there: the system then does not read ahead
 * @throws ERR_IO, ERR_FORMAT as `readSafetensors`; ERR_FORMAT for a tensor that does not start at a multiple of its element
 * size; ERR_DTYPE for bool
 */
export async function mapSafetensors(
  path: string,
  options: { names?: readonly string[]; randomAccess?: boolean; signal?: AbortSignal } = {},
): Promise<Safetensors> {
  knownOptions(options, ['names', 'randomAccess', 'signal']);
  const { signal, randomAccess = false } = options;
  boolean('randomAccess', randomAccess);
  const { names, stamp, parts, metadata } = await openFile(path, options);
  const handles = await runJob('query', { signal }, (control) =>
    native.safetensorsMap(control, path, stamp, parts, randomAccess),
  );
  return { tensors: new Map(names.map((name, i) => [name, new Tensor(handles[i]!)])), metadata };
}

/** Reads and checks the header. */
async function openFile(
  path: string,
  options: { names?: readonly string[] | undefined; signal?: AbortSignal | undefined },
) {
  const wanted = options.names;
  if (wanted !== undefined && !Array.isArray(wanted)) expected('names', 'an array of strings', wanted);
  for (const name of wanted ?? []) if (typeof name !== 'string') expected('names', 'an array of strings', name);
  const { json, dataStart, bytes, stamp } = await runJob('query', { signal: options.signal }, (control) =>
    native.safetensorsHeader(control, path),
  );
  const { entries, metadata } = parseHeader(path, json as Uint8Array, bytes - dataStart);
  const names = wanted ?? [...entries.keys()];
  const parts = names.map((name) => {
    const entry = entries.get(name);
    if (!entry)
      throw new TopknotError(
        'ERR_FORMAT',
        `path: '${path}' has no tensor '${name}'; it has ${listed([...entries.keys()])}`,
      );
    return { dtype: entry.dtype, shape: entry.shape, offset: dataStart + entry.begin };
  });
  return { names, stamp, parts, metadata };
}

interface Entry {
  dtype: DType;
  shape: number[];
  begin: number;
  end: number;
}

function parseHeader(path: string, json: Uint8Array, dataBytes: number) {
  const bad = (what: string): never => {
    throw new TopknotError('ERR_FORMAT', `path: '${path}' is no valid safetensors file: ${what}`);
  };
  let header: unknown;
  try {
    header = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(json));
  } catch (cause) {
    throw new TopknotError('ERR_FORMAT', `path: '${path}' is no valid safetensors file: its header is not JSON`, {
      cause,
    });
  }
  if (typeof header !== 'object' || header === null || Array.isArray(header)) bad('its header is not a JSON object');
  const entries = new Map<string, Entry>();
  const metadata = new Map<string, string>();
  for (const [name, value] of Object.entries(header as object)) {
    if (name === '__metadata__') {
      for (const [key, text] of Object.entries((value ?? {}) as object)) {
        if (typeof text !== 'string') bad(`its metadata '${key}' is not a string`);
        metadata.set(key, text);
      }
      continue;
    }
    entries.set(name, parseEntry(name, value, bad));
  }
  let end = 0;
  for (const [name, e] of [...entries].sort(([, a], [, b]) => a.begin - b.begin || a.end - b.end)) {
    if (e.begin !== end) bad(`tensor '${name}' starts at byte ${e.begin} of the data, expected ${end}`);
    end = e.end;
  }
  if (end !== dataBytes)
    bad(`its tensors take ${end} bytes but ${dataBytes} follow the header; it may have been cut short`);
  return { entries, metadata };
}

function parseEntry(name: string, value: unknown, bad: (what: string) => never): Entry {
  const { dtype: text, shape, data_offsets: offsets } = (value ?? {}) as Record<string, unknown>;
  const dtype =
    dtypes.get(text as string) ??
    bad(`tensor '${name}' has dtype ${JSON.stringify(text)}; known are ${listed([...dtypes.keys()])}`);
  const isCount = (n: unknown): n is number => Number.isSafeInteger(n) && (n as number) >= 0;
  if (!Array.isArray(shape) || shape.length > 8 || !shape.every(isCount)) bad(`tensor '${name}' has no valid shape`);
  if (!Array.isArray(offsets) || offsets.length !== 2 || !offsets.every(isCount))
    bad(`tensor '${name}' has no valid data_offsets`);
  const [begin, end] = offsets as [number, number];
  const bytes = (shape as number[]).reduce((product, n) => product * n, dtypeBytes[dtype]);
  if (bytes !== end - begin) bad(`tensor '${name}' has ${end - begin} bytes, but its shape and dtype need ${bytes}`);
  return { dtype, shape: shape as number[], begin, end };
}

const listed = (names: readonly string[]): string =>
  names.slice(0, 12).join(', ') + (names.length > 12 ? `, ... (${names.length} in all)` : '') || 'none';
