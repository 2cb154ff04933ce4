// Batched systems solved by numpy.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { openPython } from './python.mjs';

const script = fileURLToPath(new URL('./numpy_solve.py', import.meta.url));

/**
 * `{ version, run(way), x, close }`: run solves by one of the ways that the script names and gives its own time as
 * `{ ms: [...] }`; x() is the first solutions of the last run. Needs a Python ($NUMPY_PYTHON, else python3) that can import
 * numpy. The matrices a and right-hand sides b, float32, are repeated `copies` times.
 */
export async function openNumpy({ a, b, n, copies, threads }) {
  const folder = mkdtempSync(join(tmpdir(), 'topknot-bench-'));
  try {
    writeFileSync(join(folder, 'a.f32'), a);
    writeFileSync(join(folder, 'b.f32'), b);
    const python = process.env.NUMPY_PYTHON ?? 'python3';
    const { versions, ask, close } = await openPython(python, script, [folder, n, copies, threads]);
    return {
      version: `${versions.numpy} (${versions.blas})`,
      run: async (way) => ({ ms: [(await ask(way)).seconds * 1000] }),
      x: async () => Float32Array.from((await ask('x')).x),
      close,
    };
  } finally {
    rmSync(folder, { recursive: true });
  }
}
