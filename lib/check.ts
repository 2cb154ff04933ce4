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

/** An option that must be true or false. @internal */
export function boolean(name: string, value: unknown): boolean {
  if (typeof value !== 'boolean') expected(name, 'true or false', value);
  return value;
}

/** An option that must be one of some words. @internal */
export function oneOf<T extends string>(name: string, value: unknown, choices: readonly T[]): T {
  if (!choices.includes(value as T)) expected(name, choices.map((c) => `'${c}'`).join(' or '), value);
  return value as T;
}

/** How many results may be asked of a catalogue. @internal */
export function checkK(k: unknown, catalogue: number): number {
  if (!Number.isInteger(k)) expected('k', 'an integer', k);
  if ((k as number) < 1 || (k as number) > catalogue)
    throw new TopknotError(
      'ERR_RANGE',
      `k: expected 1 to ${catalogue}, the size of the catalogue, but received ${describe(k)}`,
    );
  return k as number;
}

/** Refuses options of the wrong type or with a name that does not exist, where a typo would go unnoticed. @internal */
export function knownOptions(options: unknown, names: readonly string[]): void {
  if (typeof options !== 'object' || options === null) expected('options', 'an object', options);
  for (const name of Object.keys(options)) {
    if (!names.includes(name))
      throw new TopknotError('ERR_ARGUMENT', `options.${name}: no such option; known are ${names.join(', ')}`);
  }
}

function inRange(name: string, value: number, min: number, max: number): number {
  if (value >= min && value <= max) return value;
  const bounds = max >= Number.MAX_SAFE_INTEGER ? `${min} or more` : `${min} to ${max}`;
  throw new TopknotError('ERR_RANGE', `${name}: expected ${bounds} but received ${describe(value)}`);
}
