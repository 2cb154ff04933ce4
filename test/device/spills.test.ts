import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';

const script = fileURLToPath(new URL('../../scripts/cuda-spills.mjs', import.meta.url));

it('hot CUDA kernels spill no registers and nvcc has nothing to warn of', { timeout: 900_000 }, ({ skip }) => {
  const { status, stdout, stderr } = spawnSync(process.execPath, [script], { encoding: 'utf8' });
  if (status === 77) skip('no nvcc');
  expect(stdout + stderr, stdout).toMatch(/ 0 problems|clean before/);
  expect(status).toBe(0);
});
