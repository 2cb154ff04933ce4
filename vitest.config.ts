import { fileURLToPath } from 'node:url';
import type { Plugin } from 'vite';
import { defineConfig } from 'vitest/config';

const at = (path: string) => fileURLToPath(new URL(path, import.meta.url));

/** Two emulated GPUs, by a plugin that is built with the C++ tests (npm test does that; or build topknot_cuda_simt). */
const gpus = { TOPKNOT_CUDA_PLUGIN: at('build/native/test/libtopknot_cuda_simt.so'), TOPKNOT_SIMT_PLUGIN: 'two-gpus' };

/** The tests of the operations as they are, but with tensors on the GPU. */
const onGpu: Plugin = {
  name: 'on-gpu',
  enforce: 'pre',
  resolveId(source, importer) {
    const replaced = source.endsWith('/lib/index.js') && /\/test\/(ops|search|nn)\//.test(importer ?? '');
    return replaced ? at('test/device/on-gpu.ts') : undefined;
  },
};

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
      { extends: true, test: { name: 'cuda', include: ['test/device/**/*.test.ts'], env: gpus } },
      {
        extends: true,
        plugins: [onGpu],
        test: {
          name: 'cuda ops',
          // What is about threads, or too much for the emulator, they leave out by TOPKNOT_TEST_DEVICE.
          include: [
            'test/ops/{softmax,layer-norm,elementwise,reduce,matmul,attention,cholesky}.test.ts',
            'test/ops/{embedding-bag,embedding-backward}.test.ts',
            'test/search/top-k.test.ts',
            'test/nn/multi-head-attention.test.ts',
          ],
          env: { ...gpus, TOPKNOT_TEST_DEVICE: 'cuda' },
        },
      },
    ],
  },
});
