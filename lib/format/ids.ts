import type { Id } from '../data/ids.js';
import { Ids } from '../data/ids.js';
import { TopknotError } from '../errors.js';
import { inSlices } from '../slices.js';
import { type Tensor, tensor } from '../tensor.js';

// How ids lie in a file, by kind (metadata `<name>.ids`):
//   rows    nothing: the ids are the row numbers
//   number  `<name>.ids` F64
//   bigint  `<name>.ids` I64, or as text when one does not fit
//   text    `<name>.ids` U8, the UTF-8 of all ids in a row, and `<name>.ids.ends` I64, where each one ends;
//           `bigint text` is the same with bigints in decimal
type Kind = 'rows' | 'number' | 'bigint' | 'bigint text' | 'text';

/** Ids as tensors and metadata. `name` says whose: users, items. @throws ERR_VALUE for text without a UTF-8 form @internal */
export async function saveIds(
  name: string,
  ids: Ids,
  signal?: AbortSignal | undefined,
): Promise<{ tensors: (readonly [string, Tensor])[]; metadata: Record<string, string> }> {
  const all = [...ids];
  const as = (kind: Kind, tensors: (readonly [string, Tensor])[]) => ({ tensors, metadata: { [`${name}.ids`]: kind } });
  if (ids.isRange) return as('rows', []);
  if (ids.type === 'number') return as('number', [[`${name}.ids`, tensor(Float64Array.from(all as number[]))]]);
  if (ids.type === 'bigint' && all.every((id) => BigInt.asIntN(64, id as bigint) === id))
    return as('bigint', [[`${name}.ids`, tensor(BigInt64Array.from(all as bigint[]))]]);
  const { bytes, ends } = await encode(name, all, signal);
  return as(ids.type === 'bigint' ? 'bigint text' : 'text', [
    [`${name}.ids`, tensor(bytes)],
    [`${name}.ids.ends`, tensor(ends, { dtype: 'int64' })],
  ]);
}

/** The ids that saveIds wrote, with their map built. @throws ERR_FORMAT, ERR_VALUE or ERR_ARGUMENT for others @internal */
export async function loadIds<T extends Id>(
  name: string,
  count: number,
  metadata: ReadonlyMap<string, string>,
  tensors: ReadonlyMap<string, Tensor>,
  signal?: AbortSignal | undefined,
): Promise<Ids<T>> {
  const kind = metadata.get(`${name}.ids`) as Kind | undefined;
  if (kind === 'rows') return Ids.range(count) as Ids as Ids<T>;
  const part = async (suffix: string, dtype: string, read: (t: Tensor) => Promise<unknown>) => {
    const t = tensors.get(`${name}.ids${suffix}`);
    if (t?.dtype !== dtype) throw new TopknotError('ERR_FORMAT', `${name}.ids${suffix}: expected a tensor of ${dtype}`);
    return read(t);
  };
  const data = (t: Tensor) => t.data();
  const exact = async (ids: readonly Id[]) => {
    if (ids.length !== count)
      throw new TopknotError('ERR_FORMAT', `${name}.ids: expected ${count} ids but the file has ${ids.length}`);
    return (await Ids.checked(ids, `${name}.ids`)) as Ids<T>;
  };
  if (kind === 'number') return exact(Array.from((await part('', 'float64', data)) as Float64Array));
  if (kind === 'bigint') return exact(Array.from((await part('', 'int64', data)) as BigInt64Array));
  if (kind !== 'text' && kind !== 'bigint text')
    throw new TopknotError('ERR_FORMAT', `${name}.ids: the file does not say of which kind they are`);
  const bytes = (await part('', 'uint8', data)) as Uint8Array;
  const ends = (await part('.ends', 'int64', (t) => t.cast('float64').data())) as Float64Array;
  return exact(await decode(name, bytes, ends, kind === 'bigint text', signal));
}

async function encode(name: string, ids: readonly Id[], signal?: AbortSignal | undefined) {
  let bytes = Buffer.allocUnsafe(ids.length * 16 + 64);
  let at = 0;
  const ends = new Float64Array(ids.length);
  await inSlices(
    ids.length,
    (begin, end) => {
      for (let i = begin; i < end; i++) {
        const text = String(ids[i]);
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

async function decode(
  name: string,
  bytes: Uint8Array,
  ends: Float64Array,
  bigints: boolean,
  signal?: AbortSignal | undefined,
): Promise<Id[]> {
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const ids: Id[] = [];
  let at = 0;
  await inSlices(
    ends.length,
    (begin, end) => {
      for (let i = begin; i < end; i++) {
        const next = ends[i]!;
        if (!(next >= at && next <= buffer.length))
          throw new TopknotError(
            'ERR_FORMAT',
            `${name}.ids.ends: expected rising ends within the text, but entry ${i} is ${next}`,
          );
        const text = buffer.toString('utf8', at, next);
        if (bigints && !/^-?\d+$/.test(text))
          throw new TopknotError('ERR_FORMAT', `${name}.ids: expected a decimal integer but entry ${i} is '${text}'`);
        ids.push(bigints ? BigInt(text) : text);
        at = next;
      }
    },
    signal,
  );
  return ids;
}
