// Builds the C++ tests under sanitizers and runs them.
//   node scripts/sanitize.mjs address,undefined|thread [test name pattern]
import { spawnSync } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { buildEnvironment, logged, root, run, say, seconds, state } from './steps.mjs';
import { jobs } from './toolchain.mjs';

const [kind, pattern = '.'] = process.argv.slice(2);
if (kind !== 'address,undefined' && kind !== 'thread') {
  say('usage: node scripts/sanitize.mjs address,undefined|thread [test name pattern]');
  process.exit(2);
}
const build = join(root, `build-${kind.split(',')[0]}`);
const start = performance.now();
mkdirSync(state, { recursive: true });

try {
  const env = buildEnvironment();
  const log = join(state, `${kind.split(',')[0]}.log`);
  const options = [`-DTOPKNOT_SANITIZE=${kind}`, '-DTOPKNOT_TESTS=ON'];
  await logged('cmake', ['-S', root, '-B', build, ...options], { log, env });
  await logged('cmake', ['--build', build, '--parallel', String(jobs())], { log, env, title: kind });
  say(`sanitize: ${kind}: built in ${seconds(start)}`);
  // The thread sanitizer of GCC 12 refuses the address layouts of newer kernels; without randomisation it starts.
  const still = ['setarch', process.arch === 'x64' ? 'x86_64' : process.arch, '-R'];
  const prefix = kind === 'thread' && spawnSync(still[0], [...still.slice(1), 'true']).status === 0 ? still : [];
  const [command, ...args] = [...prefix, 'ctest', '--test-dir', build, '-R', pattern];
  const code = await run(
    command,
    [...args, '--output-on-failure', '--no-tests=error', '--timeout', '1200', '--parallel', '2'],
    { env: { ...process.env, UBSAN_OPTIONS: 'print_stacktrace=1', TSAN_OPTIONS: 'halt_on_error=1' } },
  );
  say(`sanitize: ${kind}: ${code === 0 ? 'clean' : 'not clean'}, ${seconds(start)}`);
  process.exitCode = code;
} catch (error) {
  say(`sanitize: ${error.message}`);
  process.exitCode = 1;
}
