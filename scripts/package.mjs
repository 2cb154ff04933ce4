// Makes prebuilds/: the addon (and the CUDA plugin where nvcc is) stripped, under the names that node-gyp-build looks for.
// Works in a copy of the tree, so that build/ keeps what the tests and the demo load.
//   node scripts/package.mjs
import { execFileSync } from 'node:child_process';
import { cpSync, existsSync, mkdtempSync, readdirSync, rmSync, statSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { buildEnvironment, cudaOption, logged, root, say, seconds, state } from './steps.mjs';
import { jobs } from './toolchain.mjs';

/** Copies what git tracks or would track, and dist/, into the directory. */
export function copyTree(to) {
  const list = execFileSync('git', ['ls-files', '-z', '--cached', '--others', '--exclude-standard'], {
    cwd: root,
    encoding: 'utf8',
    maxBuffer: 1 << 26,
  });
  for (const file of [...list.split('\0'), 'dist']) {
    if (file && file !== 'node_modules' && existsSync(join(root, file))) {
      cpSync(join(root, file), join(to, file), { recursive: true });
    }
  }
  symlinkSync(join(root, 'node_modules'), join(to, 'node_modules'));
}

/** What is compiled into the binary from others' headers, and where their licences lie on the machine that compiles. */
const licences = {
  'usearch.txt': ['node_modules/usearch/LICENSE'],
  'highway.txt': ['/usr/share/doc/libhwy-dev/copyright'],
  'eigen.txt': ['/usr/share/doc/libeigen3-dev/copyright'],
};

/** The binary goes out with the licences of what is in it, or not at all. */
function copyLicences(tree) {
  for (const [name, places] of Object.entries(licences)) {
    const found = places.map((place) => resolve(root, place)).find((file) => existsSync(file));
    if (!found)
      throw new Error(`licences: none of ${places.join(', ')} is there, which goes into the package as ${name}`);
    cpSync(found, join(tree, 'prebuilds', 'licences', name));
  }
}

/** Builds the prebuild of this platform in a copy of the tree. */
export async function prebuild(tree) {
  const compile = `cmake-js compile --parallel ${jobs()} --CD${cudaOption()} --CDTOPKNOT_TESTS=OFF`;
  const args = ['--napi', '--strip', '--tag-libc', '--preinstall', compile, '--node-gyp', 'echo'];
  await logged(join(root, 'node_modules', '.bin', 'prebuildify'), args, {
    log: join(state, 'prebuildify.log'),
    cwd: tree,
    env: buildEnvironment(tree),
    title: 'prebuild',
  });
  copyLicences(tree);
  return readdirSync(join(tree, 'prebuilds'), { recursive: true })
    .map((name) => join('prebuilds', name))
    .filter((name) => statSync(join(tree, name)).isFile());
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  const start = performance.now();
  const tree = mkdtempSync(join(tmpdir(), 'topknot-package-'));
  try {
    copyTree(tree);
    const made = await prebuild(tree);
    rmSync(join(root, 'prebuilds'), { recursive: true, force: true });
    cpSync(join(tree, 'prebuilds'), join(root, 'prebuilds'), { recursive: true });
    for (const name of made) say(`${name}  ${(statSync(join(root, name)).size / 1e6).toFixed(2)} MB`);
    say(`packaged in ${seconds(start)}`);
  } catch (error) {
    say(error.message);
    process.exitCode = 1;
  } finally {
    rmSync(tree, { recursive: true, force: true });
  }
}
