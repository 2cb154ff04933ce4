/** What went wrong, for programs. The message says which argument, what was expected, what came and what to do. */
export type ErrorCode =
  | 'ERR_ARGUMENT'
  | 'ERR_SHAPE'
  | 'ERR_DTYPE'
  | 'ERR_RANGE'
  | 'ERR_VALUE'
  | 'ERR_UNKNOWN_ID'
  | 'ERR_NOT_FITTED'
  | 'ERR_DEVICE'
  | 'ERR_DEVICE_LOST'
  | 'ERR_FORMAT'
  | 'ERR_IO'
  | 'ERR_MEMORY'
  | 'ERR_BUSY'
  | 'ERR_DISPOSED'
  | 'ERR_ADDON'
  | 'ERR_DEPENDENCY'
  | 'ERR_INTERNAL';

/**
 * Every error that topknot throws or rejects with, except an abort, which rejects with the signal's own reason.
 *
 * @example
 * try { await model.recommend('nobody'); } catch (e) {
 *   if (e instanceof TopknotError && e.code === 'ERR_UNKNOWN_ID') showPopular();
 * }
 */
export class TopknotError extends Error {
  override readonly name = 'TopknotError';
  readonly code: ErrorCode;

  constructor(code: ErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}

/** "a string 'x'", "NaN", "an array": how a value is named in a message. */
export function describe(value: unknown): string {
  if (value === null || value === undefined) return String(value);
  if (typeof value === 'string') return `'${value.length > 40 ? `${value.slice(0, 40)}...` : value}'`;
  if (typeof value === 'bigint') return `${value}n`;
  if (typeof value === 'number' || typeof value === 'boolean') return String(value);
  if (Array.isArray(value)) return 'an array';
  if (typeof value === 'function') return 'a function';
  return `an object (${(value as object).constructor?.name ?? 'no prototype'})`;
}

/** Throws ERR_ARGUMENT: `name: expected ... but received ...`. */
export function expected(name: string, what: string, value: unknown): never {
  throw new TopknotError('ERR_ARGUMENT', `${name}: expected ${what} but received ${describe(value)}`);
}
