import type { Id } from '../data/ids.js';
import { Ids } from '../data/ids.js';
import { PackedIds, type PackedKind } from '../data/packed-ids.js';
import type { DType } from '../dtype.js';
import { TopknotError } from '../errors.js';
import { inSlices } from '../slices.js';
import { type Tensor, tensor } from '../tensor.js';

// How ids lie in a file, by kind (metadata `<name>.ids`):
//   rows    nothing: the ids are the row numbers
//   number  `<name>.ids` F64
//   bigint  `<name>.ids` I64, or as text when one does not fit
//   text    `<name>.ids` U8, the UTF-8 of all ids in a row, and `<name>.ids.ends` I64, where each one ends;
//           `bigint text` is the same with bigints in decimal
type Kind = 'rows' | PackedKind;

/** Ids as tensors and metadata. `name` says whose: users, items. @throws ERR_VALUE for text without a UTF-8 form @internal */
export async function saveIds(
  name: string,
  ids: Ids,
  signal?: AbortSignal | undefined,
): Promise<{ tensors: (readonly [string, Tensor])[]; metadata: Record<string, string> }> {
  const as = (kind: Kind, tensors: (readonly [string, Tensor])[]) => ({ tensors, metadata: { [`${name}.ids`]: kind } });
  const count = ids.size;
  if (ids instanceof PackedIds) {
    const { kind, data, ends } = ids.packed;
    return as(
      kind,
      ends ? [[`${name}.ids`, data] as const, [`${name}.ids.ends`, ends] as const] : [[`${name}.ids`, data]],
    );
  }
  if (ids.isRange || count === 0) return as('rows', []);
  const copy = (put: (row: number) => void) =>
    inSlices(
      count,
      (begin, end) => {
        for (let row = begin; row < end; row++) put(row);
      },
      signal,
    );
  if (ids.type === 'number') {
    const numbers = new Float64Array(count);
    await copy((row) => {
      numbers[row] = (ids.at(row) as number) + 0; // no negative zero
    });
    return as('number', [[`${name}.ids`, tensor(numbers)]]);
  }
  if (ids.type === 'bigint') {
    const bigints = new BigInt64Array(count);
    let exact = true;
    await copy((row) => {
      bigints[row] = ids.at(row) as bigint;
      exact &&= bigints[row] === ids.at(row);
    });
    if (exact) return as('bigint', [[`${name}.ids`, tensor(bigints)]]);
  }
  const { bytes, ends } = await encode(name, ids, signal);
  return as(ids.type === 'bigint' ? 'bigint text' : 'text', [
    [`${name}.ids`, tensor(bytes)],
    [`${name}.ids.ends`, tensor(ends, { dtype: 'int64' })],
  ]);
}

/** The ids that saveIds wrote. @throws ERR_FORMAT or ERR_VALUE for what it cannot have written @internal */
export async function loadIds<T extends Id>(
  name: string,
  count: number,
  metadata: ReadonlyMap<string, string>,
  tensors: ReadonlyMap<string, Tensor>,
  signal?: AbortSignal | undefined,
): Promise<Ids<T>> {
  const kind = metadata.get(`${name}.ids`) as Kind | undefined;
  if (kind === 'rows') return Ids.range(count) as Ids as Ids<T>;
  const dtype = kind && dtypeOf[kind];
  if (!dtype) throw new TopknotError('ERR_FORMAT', `${name}.ids: the file does not say of which kind they are`);
  const part = (suffix: string, wanted: DType): Tensor => {
    const t = tensors.get(`${name}.ids${suffix}`);
    if (t?.dtype === wanted && t.shape.length === 1) return t;
    throw new TopknotError('ERR_FORMAT', `${name}.ids${suffix}: expected a tensor of ${wanted} with one dimension`);
  };
  const ends = dtype === 'uint8' ? (part('.ends', 'int64') as Tensor<'int64'>) : undefined;
  const ids = await PackedIds.open<T>(kind, part('', dtype), ends, { signal });
  if (ids.size !== count)
    throw new TopknotError('ERR_FORMAT', `${name}.ids: expected ${count} ids but the file has ${ids.size}`);
  return ids;
}

const dtypeOf: Readonly<Record<PackedKind, DType>> = {
  number: 'float64',
  bigint: 'int64',
  text: 'uint8',
  'bigint text': 'uint8',
};

async function encode(name: string, ids: Ids, signal?: AbortSignal | undefined) {
  let bytes = Buffer.allocUnsafe(ids.size * 16 + 64);
  let at = 0;
  const ends = new Float64Array(ids.size);
  await inSlices(
    ids.size,
    (begin, end) => {
      for (let i = begin; i < end; i++) {
        const text = String(ids.at(i));
        if (/\p{Surrogate}/u.test(text))
          throw new TopknotError(
            'ERR_VALUE',
            `${name}: the id in row ${i} has half a surrogate pair, which no file can hold`,
          );
        if (at + text.length * 3 > bytes.length) bytes = Buffer.concat([bytes], 2 * bytes.length + text.length * 3);
        at += bytes.write(text, at);
        ends[i] = at;
      }
    },
    signal,
  );
  return { bytes: new Uint8Array(bytes.buffer, bytes.byteOffset, at), ends };
}
