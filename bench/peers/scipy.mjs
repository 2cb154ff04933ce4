// Sparse products and truncated singular values by scipy.
import { fileURLToPath } from 'node:url';
import { openPython } from './python.mjs';

const script = fileURLToPath(new URL('./scipy_svd.py', import.meta.url));

/**
 * `{ version, run, values, close }`: run() is one product or decomposition and gives its own time as `{ ms: [...] }`;
 * values() are the singular values, falling. Needs a Python ($NUMPY_PYTHON, else python3) that can import scipy.
 */
export async function openScipy({ folder, what, k, threads }) {
  const python = process.env.NUMPY_PYTHON ?? 'python3';
  const { versions, ask, close } = await openPython(python, script, [folder, what, k, threads]);
  return {
    version: versions.scipy,
    run: async () => ({ ms: [(await ask('run')).seconds * 1000] }),
    values: async () => (await ask('values')).values,
    close,
  };
}
