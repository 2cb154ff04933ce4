import { explain, loadAddon } from './addon.js';
import { TopknotError } from './errors.js';
import type { NativeOps } from './native-ops.js';

function load(): NativeOps {
  try {
    return loadAddon() as NativeOps;
  } catch (cause) {
    throw new TopknotError('ERR_ADDON', explain(cause as Error), { cause });
  }
}

/** The addon: every operation of native/ops/ops.def. Tensors cross as opaque handles. */
export const native: NativeOps = load();
native.setErrorClass(TopknotError as new (code: string, message: string) => Error);
