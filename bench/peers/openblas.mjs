// Products of matrices by the BLAS of numpy: OpenBLAS where Debian's numpy is.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { openPython } from './python.mjs';

const script = fileURLToPath(new URL('./numpy_matmul.py', import.meta.url));

/** OpenBLAS's threads spin for 2^26 cycles after a call. */
export const settleMs = 40;

/**
 * `{ version, run, row, close }`: run() is one product and gives its own time as `{ ms: [...] }`; row() the first row of
 * the last one. Needs a Python ($NUMPY_PYTHON, else python3) that can import numpy.
 */
export async function openBlas({ a, b, m, n, k, transposeB, threads }) {
  const folder = mkdtempSync(join(tmpdir(), 'topknot-bench-'));
  try {
    writeFileSync(join(folder, 'a.f32'), a);
    writeFileSync(join(folder, 'b.f32'), b);
    const python = process.env.NUMPY_PYTHON ?? 'python3';
    const args = [folder, m, n, k, transposeB ? 1 : 0, threads];
    const { versions, ask, close } = await openPython(python, script, args);
    return {
      version: `${versions.blas} (numpy ${versions.numpy})`,
      run: async () => ({ ms: [(await ask('')).seconds * 1000] }),
      row: async () => (await ask('out')).out,
      close,
    };
  } finally {
    rmSync(folder, { recursive: true });
  }
}
