// Runs when the package is installed: keeps the prebuilt addon where it loads, else builds one from source with CMake.
// The CUDA plugin comes with prebuilds only: a user's nvcc may know other GPUs than its build asks for.
import { spawnSync } from 'node:child_process';
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { jobs, missingTools } from './toolchain.mjs';

const root = fileURLToPath(new URL('..', import.meta.url));
const require = createRequire(import.meta.url);
const say = (text) => process.stderr.write(`topknot: ${text}\n`);

/** Why the addon does not load, or undefined when it does. In a process of its own: a broken binary may kill it. */
function loadFailure() {
  const load = `require(${JSON.stringify(require.resolve('node-gyp-build'))})(${JSON.stringify(root)})`;
  const code = `const addon = ${load}; addon.isa(); process.exitCode = addon.hnswAvailable() ? 0 : 64`;
  const { status, signal, stderr } = spawnSync(process.execPath, ['-e', code], { encoding: 'utf8' });
  if (status === 64 && usearchInclude()) return 'it was built without HnswIndex, and usearch has been installed since';
  if (status === 0 || status === 64) return undefined;
  return /^(?:\w*Error): (.*)$/m.exec(stderr)?.[1] ?? `loading it ended with ${signal ?? status}`;
}

function cmake(args) {
  const { status, stdout, stderr, error } = spawnSync('cmake', args, { encoding: 'utf8', maxBuffer: 1 << 28 });
  if (status === 0) return;
  const output = error ? error.message : `${stdout}${stderr}`.trimEnd().split('\n').slice(-40).join('\n');
  throw new Error(`cmake ${args.slice(0, 2).join(' ')} failed:\n${output}`);
}

/** Where the header for HnswIndex lies: beside this package or in the project that installs it. */
function usearchInclude() {
  const from = [root, process.env.INIT_CWD].filter(Boolean).map((folder) => createRequire(join(folder, 'x')));
  const folders = from.flatMap((near) => near.resolve.paths('usearch'));
  return folders.map((f) => join(f, 'usearch', 'include')).find((f) => existsSync(join(f, 'usearch', 'index.hpp')));
}

function build() {
  const missing = missingTools();
  if (missing.length) {
    const packages = missing.flatMap((tool) => tool.apt ?? []);
    throw new Error(
      [
        `a source build needs ${missing.map((tool) => tool.what).join(', ')}.`,
        ...(packages.length ? [`  Debian, Ubuntu: sudo apt-get install -y ${packages.join(' ')}`] : []),
        '  Then: npm rebuild topknot',
      ].join('\n'),
    );
  }
  const includes = [require('node-api-headers').include_dir, dirname(require.resolve('node-addon-api/package.json'))];
  const usearch = usearchInclude();
  if (!usearch)
    say('without HnswIndex; to have it too: npm install usearch@2.25.3 --ignore-scripts && npm rebuild topknot');
  const work = mkdtempSync(join(tmpdir(), 'topknot-build-'));
  try {
    cmake([
      '-S',
      root,
      '-B',
      work,
      '-DCMAKE_BUILD_TYPE=Release',
      `-DCMAKE_LIBRARY_OUTPUT_DIRECTORY=${join(work, 'Release')}`,
      `-DCMAKE_JS_INC=${includes.join(';')}`,
      ...(usearch ? [`-DUSEARCH_INCLUDE_DIR=${usearch}`] : []),
    ]);
    cmake(['--build', work, '--parallel', String(jobs())]);
    const target = join(root, 'build', 'Release');
    mkdirSync(target, { recursive: true });
    copyFileSync(join(work, 'Release', 'topknot.node'), join(target, 'topknot.node'));
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

// A checkout builds through scripts/setup.mjs, which the package does not hold.
if (existsSync(join(root, 'scripts', 'setup.mjs'))) process.exit(0);

const reason = loadFailure();
if (reason) {
  say(`no addon to use on ${process.platform}-${process.arch}: ${reason}`);
  say('building from source, which takes a few minutes ...');
  try {
    build();
    const broken = loadFailure();
    if (broken) throw new Error(`the addon was built but does not load: ${broken}`);
    say('built from source');
  } catch (error) {
    say(error.message);
    process.exit(1);
  }
}
