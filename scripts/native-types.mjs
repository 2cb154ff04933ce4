// Writes lib/native-ops.ts, the TypeScript view of the addon, from the signatures that the addon itself reports.
//   node scripts/native-types.mjs [--check]
import { readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const addon = createRequire(import.meta.url)('node-gyp-build')(root);
const file = `${root}lib/native-ops.ts`;
// Parameters take a typed array where a tensor is wanted; the addon copies it.
const types = addon.types
  .replaceAll(/'float32' \|[^;,)]*?'bool'/g, 'DType')
  .replaceAll(/([(,] ?)(\w+): Handle\b/g, '$1$2: Handle | TypedArray')
  .replaceAll('readonly (number)[]', 'readonly number[]')
  .replaceAll('readonly (string)[]', 'readonly string[]')
  .replaceAll(/(read|readSync)\(tensor: Handle \| TypedArray\)/g, '$1(tensor: Handle)');
const text = `// Made by scripts/native-types.mjs from native/ops/ops.def. Do not edit.
import type { DType, NumericArray as TypedArray } from './dtype.js';

/** A tensor in native memory. */
export type Handle = { readonly __tensor: unique symbol };
/** State that lives in native memory, such as an index. */
export type Resource = { readonly __resource: unique symbol };
/** A running job: cancel it, hear of its progress. */
export type Control = { readonly __control: unique symbol };

export interface NativeOps {
${types}}
`;

if (process.argv.includes('--check')) {
  if (readFileSync(file, 'utf8') !== text) {
    console.error('lib/native-ops.ts is out of date: run node scripts/native-types.mjs');
    process.exit(1);
  }
} else {
  writeFileSync(file, text);
}
