// The Python library `implicit`.
import { fileURLToPath } from 'node:url';
import { openPython } from './python.mjs';

const script = fileURLToPath(new URL('./implicit_als.py', import.meta.url));

/**
 * `{ version, run, close }`, where run() is one iteration and gives its own time as `{ ms: [...] }`.
 * Needs a Python ($IMPLICIT_PYTHON, else python3) that can import implicit, numpy and scipy ($PYTHONPATH).
 */
export async function openImplicit({ folder, factors, solver, threads }) {
  const python = process.env.IMPLICIT_PYTHON ?? 'python3';
  const { versions, ask, close } = await openPython(python, script, [folder, factors, solver, threads]);
  return {
    version: `${versions.implicit} (numpy ${versions.numpy})`,
    run: async () => ({ ms: [(await ask('')).seconds * 1000] }),
    close,
  };
}
