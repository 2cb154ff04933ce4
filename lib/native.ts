import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import { TopknotError } from './errors.js';
import type { NativeOps } from './native-ops.js';

const root = fileURLToPath(new URL('..', import.meta.url));
const require = createRequire(import.meta.url);

function load(): NativeOps {
  try {
    return require('node-gyp-build')(root);
  } catch (cause) {
    throw new Error(
      `topknot: no binary for ${process.platform}-${process.arch} could be loaded from ${root}. ` +
        'Build it with: npm rebuild topknot',
      { cause },
    );
  }
}

/** The addon: every operation of native/ops/ops.def. Tensors cross as opaque handles. */
export const native: NativeOps = load();
native.setErrorClass(TopknotError as new (code: string, message: string) => Error);
