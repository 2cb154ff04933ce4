import { fileURLToPath } from 'node:url';
import { defineConfig } from 'vitest/config';

// Tests import the TypeScript sources of lib/; what starts a worker or another process loads dist/, which set-up makes.
export default defineConfig({
  test: {
    pool: 'forks',
    // Sanitized, emulated or busy machines are slow; a hang still ends.
    testTimeout: 60_000,
    hookTimeout: 60_000,
    teardownTimeout: 10_000,
    projects: [
      { extends: true, test: { name: 'cpu', include: ['test/**/*.test.ts'], exclude: ['test/device/**'] } },
      {
        // Two emulated GPUs, by a plugin that is built with the C++ tests (npm test does that; or build the target
        // topknot_cuda_simt).
        extends: true,
        test: {
          name: 'cuda',
          include: ['test/device/**/*.test.ts'],
          env: {
            TOPKNOT_CUDA_PLUGIN: fileURLToPath(new URL('build/native/test/libtopknot_cuda_simt.so', import.meta.url)),
            TOPKNOT_SIMT_PLUGIN: 'two-gpus',
          },
        },
      },
    ],
  },
});
