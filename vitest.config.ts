import { defineConfig } from 'vitest/config';

// Tests import the TypeScript sources of lib/; what starts a worker or another process loads dist/, which set-up makes.
export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    pool: 'forks',
    // Sanitized, emulated or busy machines are slow; a hang still ends.
    testTimeout: 60_000,
    hookTimeout: 60_000,
    teardownTimeout: 10_000,
  },
});
