// Makes a checkout ready to run: system packages, node_modules, the addon, dist/. Each step is skipped when its inputs
// have not changed. Runs before node_modules exists, so it may use nothing from it.
//   node scripts/setup.mjs [--quiet]     TOPKNOT_JOBS=n compile jobs, TOPKNOT_CUDA=0 leaves the CUDA plugin out
import { spawnSync } from 'node:child_process';
import { existsSync, lstatSync, mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { buildEnvironment, cudaOption, files, fingerprint, logged, nvcc, root, say, seconds, state } from './steps.mjs';
import { jobs, missingTools, which } from './toolchain.mjs';

const at = (...path) => join(root, ...path);
const json = (path) => JSON.parse(readFileSync(path, 'utf8'));
const bin = (name) => at('node_modules', '.bin', name);
const isRoot = process.getuid?.() === 0;

const ccache = which('ccache');

/** Lint formats with clang-format; only CI needs it without asking. */
const lintTools = process.env.CI ? [{ what: 'clang-format', apt: 'clang-format' }] : [];

const system = {
  name: 'system packages',
  missing: () => [...missingTools(), ...lintTools.filter((tool) => !which('clang-format-14', tool.what))],
  upToDate() {
    return this.missing().length === 0;
  },
  async run() {
    const missing = this.missing();
    const packages = missing.flatMap((tool) => tool.apt ?? []);
    const what = missing.map((tool) => tool.what).join(', ');
    if (packages.length < missing.length || !isRoot || !which('apt-get')) {
      const fix = packages.length ? ` Install with: sudo apt-get install -y ${packages.join(' ')}` : '';
      throw new Error(`missing: ${what}.${fix}`);
    }
    // ccache is small, and saves most of the next build.
    const wanted = ccache ? packages : [...packages, 'ccache'];
    const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' };
    const log = join(state, 'apt.log');
    await logged('apt-get', ['update', '-q'], { log, env });
    await logged('apt-get', ['install', '-qy', '--no-install-recommends', ...wanted], { log, env });
    const still = this.missing();
    if (still.length) throw new Error(`still missing after apt-get: ${still.map((tool) => tool.what).join(', ')}`);
  },
  describe() {
    return `installing ${this.missing()
      .map((tool) => tool.apt ?? tool.what)
      .join(' ')}`;
  },
};

const modules = {
  name: 'node_modules',
  /** npm ci empties node_modules first; what is there may be in use. */
  command: () => (existsSync(at('node_modules')) ? ['install', '--no-save'] : ['ci']),
  describe() {
    return `npm ${this.command().join(' ')}`;
  },
  /** Compares what is installed with the lock file, so that any way of installing counts. */
  upToDate() {
    const installed = at('node_modules', '.package-lock.json');
    if (!existsSync(installed)) return false;
    // A link is shared with another checkout, which keeps it.
    if (lstatSync(at('node_modules')).isSymbolicLink()) return true;
    const have = json(installed).packages;
    return Object.entries(json(at('package-lock.json')).packages).every(
      ([path, { version, optional }]) => path === '' || (optional && !have[path]) || have[path]?.version === version,
    );
  },
  run() {
    const options = ['--ignore-scripts', '--no-audit', '--no-fund'];
    return logged('npm', [...this.command(), ...options], { log: join(state, 'npm.log') });
  },
};

const native = {
  name: 'addon',
  output: at('build', 'Release', 'topknot.node'),
  describe: () => `compiling with ${jobs()} jobs${nvcc ? ', with CUDA' : ''}${ccache ? ', with ccache' : ''}`,
  inputs: () =>
    fingerprint(
      files(at('native'), at('CMakeLists.txt')),
      json(at('node_modules', 'cmake-js', 'package.json')).version,
      json(at('node_modules', 'usearch', 'package.json')).version,
      process.env.CXX ?? '',
      nvcc ?? '',
    ),
  upToDate() {
    const built = statSync(this.output, { throwIfNoEntry: false });
    // The time tells an addon built by hand, perhaps from other sources, from the one built here.
    return built !== undefined && stamp(this) === `${this.inputs()} ${built.mtimeMs}`;
  },
  async run() {
    const before = this.inputs();
    // `build` alone keeps the options of an earlier configuration.
    const options = [`--CD${cudaOption()}`, '--CDTOPKNOT_TESTS=ON'];
    const log = join(state, 'native.log');
    const env = buildEnvironment();
    await logged(bin('cmake-js'), ['configure', ...options], { log, env });
    await logged(bin('cmake-js'), ['build', '--parallel', String(jobs())], { log, env, title: 'setup: addon' });
    return `${before} ${statSync(this.output).mtimeMs}`;
  },
};

const types = {
  name: 'dist',
  describe: () => 'tsc',
  inputs: () =>
    fingerprint(files(at('lib'), at('tsconfig.json')), json(at('node_modules', 'typescript', 'package.json')).version),
  upToDate() {
    return existsSync(at('dist', 'index.js')) && stamp(this) === this.inputs();
  },
  async run() {
    const before = this.inputs();
    await logged(bin('tsc'), ['-p', 'tsconfig.json'], { log: join(state, 'tsc.log') });
    // What a deleted source left behind would go into the package.
    for (const file of files(at('dist'))) {
      const source = at('lib', relative(at('dist'), file).replace(/(\.d\.ts|\.js|\.js\.map)$/, '.ts'));
      if (!existsSync(source)) rmSync(file);
    }
    return before;
  },
};

const stampFile = (step) => join(state, step.name.replace(' ', '-'));
function stamp(step) {
  try {
    return readFileSync(stampFile(step), 'utf8');
  } catch {
    return undefined;
  }
}

const steps = [system, modules, native, types];

async function work() {
  for (const step of steps) {
    if (step.upToDate()) continue;
    const start = performance.now();
    say(`setup: ${step.name}: ${step.describe()} ...`);
    rmSync(stampFile(step), { force: true });
    const done = await step.run();
    if (done) writeFileSync(stampFile(step), done);
    say(`setup: ${step.name}: done in ${seconds(start)}`);
  }
}

/** The same command under the system's file lock, which the kernel drops however its holder ends. */
function underLock() {
  const lock = join(state, 'lock');
  const command = ['-o', lock, process.execPath, ...process.argv.slice(1)];
  if (spawnSync('flock', ['-n', lock, 'true']).status === 1) say('setup: another set-up runs here; waiting for it ...');
  const { status, error } = spawnSync('flock', command, {
    stdio: 'inherit',
    env: { ...process.env, TOPKNOT_SETUP_LOCKED: '1' },
  });
  if (error) throw error;
  process.exitCode = status ?? 1;
}

const [major, minor] = process.versions.node.split('.').map(Number);
try {
  if (major < 20 || (major === 20 && minor < 19))
    throw new Error(`Node 20.19 or later is needed; this is ${process.version}`);
  if (steps.every((step) => step.upToDate())) {
    if (!process.argv.includes('--quiet')) say('setup: up to date');
  } else {
    mkdirSync(state, { recursive: true });
    if (process.env.TOPKNOT_SETUP_LOCKED || !which('flock')) await work();
    else underLock();
  }
} catch (error) {
  say(`setup: ${error.message}`);
  process.exitCode = 1;
}
