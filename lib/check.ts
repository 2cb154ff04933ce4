import { describe, expected, TopknotError } from './errors.js';

/** An option that must be an integer from `min` to `max`. @internal */
export function integer(name: string, value: unknown, min: number, max: number = Number.MAX_SAFE_INTEGER): number {
  if (!Number.isInteger(value)) expected(name, 'an integer', value);
  return inRange(name, value as number, min, max);
}

/** An option that must be a finite number of at least `min`. @internal */
export function finite(name: string, value: unknown, min: number = Number.NEGATIVE_INFINITY): number {
  if (typeof value !== 'number' || !Number.isFinite(value)) expected(name, 'a finite number', value);
  return inRange(name, value, min, Number.POSITIVE_INFINITY);
}

/** An option that must be a finite number above 0. @internal */
export function positive(name: string, value: unknown): number {
  const number = finite(name, value);
  if (number > 0) return number;
  throw new TopknotError('ERR_RANGE', `${name}: expected a number above 0 but received ${describe(number)}`);
}

/** An option that must be true or false. @internal */
export function boolean(name: string, value: unknown): boolean {
  if (typeof value !== 'boolean') expected(name, 'true or false', value);
  return value;
}

/** An option that must be a string. @internal */
export function string(name: string, value: unknown): string {
  if (typeof value !== 'string') expected(name, 'a string', value);
  return value;
}

/** The name of a device, whether it is there or not. @internal */
export function deviceName(value: unknown): string {
  if (typeof value !== 'string' || !/^(cpu|auto|cuda(:(0|[1-9]\d{0,3}))?)$/.test(value))
    expected('device', "'cpu', 'cuda', 'cuda:0', ... or 'auto'", value);
  return value as string;
}

/** An option that must be one of some words. @internal */
export function oneOf<T extends string>(name: string, value: unknown, choices: readonly T[]): T {
  if (!choices.includes(value as T)) expected(name, choices.map((c) => `'${c}'`).join(' or '), value);
  return value as T;
}

/** How many results may be asked of so many. @internal */
export function checkK(k: unknown, most: number, whatMost = 'the size of the catalogue'): number {
  if (!Number.isInteger(k)) expected('k', 'an integer', k);
  if ((k as number) < 1 || (k as number) > most)
    throw new TopknotError('ERR_RANGE', `k: expected 1 to ${most}, ${whatMost}, but received ${describe(k)}`);
  return k as number;
}

/**
 * Refuses options of the wrong type or with a name that does not exist, where a typo would go unnoticed; a `device` other
 * than the CPU, with ERR_DEVICE, where there is no such option. `argument` says in messages which argument they are.
 * @internal
 */
export function knownOptions(options: unknown, names: readonly string[], argument = 'options'): void {
  isObject(argument, options);
  for (const name of Object.keys(options)) {
    if (names.includes(name)) continue;
    if (name !== 'device')
      throw new TopknotError('ERR_ARGUMENT', `${argument}.${name}: no such option; known are ${names.join(', ')}`);
    onlyCpu(argument, (options as { device?: unknown }).device);
  }
}

/** The option `device` of what has none; 'auto' permits the CPU. `why` goes into the message. @internal */
export function onlyCpu(
  argument: string,
  device: unknown,
  why = 'this has no GPU side, or chose its device where it was made',
): void {
  if (device === undefined || device === 'cpu' || device === 'auto') return;
  throw new TopknotError('ERR_DEVICE', `${argument}.device: expected 'cpu' but received ${describe(device)}: ${why}`);
}

/** An argument that must be an object, and no array. @internal */
export function isObject(name: string, value: unknown): asserts value is object {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) expected(name, 'an object', value);
}

function inRange(name: string, value: number, min: number, max: number): number {
  if (value >= min && value <= max) return value;
  const unbounded = max >= Number.MAX_SAFE_INTEGER && value < min;
  const bounds = unbounded ? `${min} or more` : `${min} to ${max}`;
  throw new TopknotError('ERR_RANGE', `${name}: expected ${bounds} but received ${describe(value)}`);
}
