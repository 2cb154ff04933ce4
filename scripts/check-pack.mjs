// Packs the package and proves it in an empty project: it loads with install scripts off, from its prebuild; with the
// prebuild taken away it says what to do, and builds itself from source.
//   node scripts/check-pack.mjs
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { copyTree, prebuild } from './package.mjs';
import { buildEnvironment, say, seconds } from './steps.mjs';

const start = performance.now();
const work = mkdtempSync(join(tmpdir(), 'topknot-check-pack-'));
const tree = join(work, 'tree');
const project = join(work, 'project');
const installed = join(project, 'node_modules', 'topknot');

const npm = (args, cwd) =>
  execFileSync('npm', args, { cwd, encoding: 'utf8', env: buildEnvironment(work), stdio: ['ignore', 'pipe', 'pipe'] });
const node = (args) => spawnSync(process.execPath, args, { cwd: project, encoding: 'utf8' });

function expect(condition, what, detail = '') {
  if (!condition) throw new Error(`${what}: no\n${detail}`);
  say(`check-pack: ${what}`);
}

const required = [
  'dist/index.js',
  'dist/index.d.ts',
  'dist/cli.js',
  'prebuilds/linux-x64/topknot.glibc.node',
  'native/backend/kernels.def',
  'prebuilds/licences/usearch.txt',
  'prebuilds/licences/highway.txt',
  'prebuilds/licences/eigen.txt',
  'CMakeLists.txt',
  'README.md',
  'LICENSE',
  'CHANGELOG.md',
  'scripts/install.mjs',
  'scripts/toolchain.mjs',
];
const unwanted = /^(lib|test|bench|examples|shared|build|node_modules)\/|^native\/test\/|\.(csv|parquet|tgz|log)$/;

const program = `
import { readFileSync } from 'node:fs';
import { FlatIndex, HnswIndex, isa } from 'topknot';
const index = await FlatIndex.from(['a', 'b', 'c'], Float32Array.of(1, 0, 0, 1, 2, 2));
const { ids, scores } = await index.search([3, 1], { k: 2, filter: { deny: ['a'] } });
if (String(ids) !== 'c,b' || String(scores) !== '8,1') throw new Error('wrong answer: ' + ids + ' ' + scores);
const hnsw = HnswIndex.available;
const found = await HnswIndex.from(['a', 'b', 'c'], Float32Array.of(1, 0, 0, 1, 2, 2)).then(
  (approximate) => approximate.searchSync([3, 1], { k: 1 }).ids[0],
  (error) => error.code,
);
if (found !== (hnsw ? 'c' : 'ERR_DEPENDENCY')) throw new Error('HnswIndex: ' + found);
const binary = readFileSync('/proc/self/maps', 'utf8').match(/\\S*topknot\\S*\\.node/)[0];
console.log(isa() + ', ' + (hnsw ? 'with' : 'without') + ' HnswIndex ' + binary);
`;

try {
  mkdirSync(tree);
  mkdirSync(project);
  copyTree(tree);
  await prebuild(tree);
  const [pack] = JSON.parse(npm(['pack', '--json', '--ignore-scripts', '--pack-destination', work], tree));
  const names = pack.files.map((file) => file.path);
  const absent = required.filter((name) => !names.includes(name));
  const extra = names.filter((name) => unwanted.test(name));
  expect(absent.length + extra.length === 0, 'the tarball holds what it should', `absent: ${absent}\nextra: ${extra}`);
  say(`check-pack: ${pack.filename}: ${names.length} files, ${(pack.size / 1e6).toFixed(2)} MB`);

  writeFileSync(join(project, 'package.json'), '{ "name": "empty", "private": true, "type": "module" }\n');
  writeFileSync(join(project, 'use.mjs'), program);
  const options = ['--ignore-scripts', '--omit=optional', '--prefer-offline', '--no-audit', '--no-fund'];
  npm(['install', ...options, join(work, pack.filename)], project);

  const first = node(['use.mjs']);
  expect(
    first.status === 0 && first.stdout.includes('/prebuilds/') && first.stdout.includes('with HnswIndex'),
    `loads from its prebuild with install scripts off: ${first.stdout.trim()}`,
    first.stderr,
  );
  const doctor = spawnSync('npx', ['--no-install', 'topknot', 'doctor'], { cwd: project, encoding: 'utf8' });
  expect(
    doctor.status === 0 && doctor.stdout.includes('prebuilds'),
    'npx topknot doctor',
    doctor.stdout + doctor.stderr,
  );

  renameSync(join(installed, 'prebuilds'), join(work, 'prebuilds-away'));
  const without = node(['use.mjs']);
  expect(
    without.status !== 0 && without.stderr.includes('npm rebuild topknot'),
    'without the prebuild the error names the command that helps',
    without.stderr,
  );
  execFileSync('npm', ['rebuild', 'topknot', '--ignore-scripts=false', '--foreground-scripts'], {
    cwd: project,
    env: buildEnvironment(installed),
    stdio: ['ignore', 2, 2],
  });
  const second = node(['use.mjs']);
  expect(
    second.status === 0 && second.stdout.includes('/build/Release/') && second.stdout.includes('without HnswIndex'),
    `builds from source and loads: ${second.stdout.trim()}`,
    second.stderr,
  );
  expect(!existsSync(join(installed, 'build', 'CMakeCache.txt')), 'leaves no build files behind');
  say(`check-pack: passed in ${seconds(start)}`);
} catch (error) {
  say(`check-pack: ${error.message}`);
  if (error.stderr) say(String(error.stderr));
  process.exitCode = 1;
} finally {
  rmSync(work, { recursive: true, force: true });
}
