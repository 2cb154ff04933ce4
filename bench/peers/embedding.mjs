// Embedding bags by scipy: a sparse matrix of the lookups times the table.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { openPython } from './python.mjs';

const script = fileURLToPath(new URL('./embedding_scipy.py', import.meta.url));

/**
 * `{ version, run(mode), close }`: run does the next batch of `ids` and gives its own time as `{ ms: [...] }`. Needs a Python
 * ($NUMPY_PYTHON, else python3) that can import numpy and scipy.
 */
export async function openScipy({ ids, n, d, bags, perBag, threads }) {
  const folder = mkdtempSync(join(tmpdir(), 'topknot-bench-'));
  try {
    writeFileSync(join(folder, 'ids.i32'), ids);
    const python = process.env.NUMPY_PYTHON ?? 'python3';
    const { versions, ask, close } = await openPython(python, script, [folder, n, d, bags, perBag, threads]);
    return {
      version: `${versions.scipy} (numpy ${versions.numpy})`,
      run: async (mode) => ({ ms: [(await ask(mode)).seconds * 1000] }),
      close,
    };
  } finally {
    rmSync(folder, { recursive: true });
  }
}
