// The Python library `implicit`.
import { fileURLToPath } from 'node:url';
import { openPython } from './python.mjs';

/**
 * `{ version, run, close }`, where run() is one iteration and gives its own time as `{ ms: [...] }`.
 * Needs a Python ($IMPLICIT_PYTHON, else python3) that can import implicit, numpy and scipy ($PYTHONPATH).
 */
export const openImplicit = ({ folder, factors, solver, threads }) =>
  open('./implicit_als.py', [folder, factors, solver, threads]);

/** The same of BPR, where an iteration is an epoch. */
export const openImplicitBpr = ({ folder, factors, threads }) => open('./implicit_bpr.py', [folder, factors, threads]);

async function open(script, args) {
  const python = process.env.IMPLICIT_PYTHON ?? 'python3';
  const path = fileURLToPath(new URL(script, import.meta.url));
  const { versions, ask, close } = await openPython(python, path, args);
  return {
    version: `${versions.implicit} (numpy ${versions.numpy})`,
    run: async () => ({ ms: [(await ask('')).seconds * 1000] }),
    close,
  };
}
