// Formatting and lint of everything: Biome for TypeScript and scripts, clang-format for C++, and no file too long to read.
//   node scripts/lint.mjs [--fix]
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { root, say } from './steps.mjs';
import { which } from './toolchain.mjs';

const fix = process.argv.includes('--fix');
const maxLines = 600;
/** Releases of clang-format disagree on a few lines; this is Debian 12's, and Ubuntu has it too. */
const clangVersion = '14';

const tracked = execFileSync('git', ['ls-files', '-z', '--cached', '--others', '--exclude-standard'], {
  cwd: root,
  encoding: 'utf8',
})
  .split('\0')
  .filter((file) => file && existsSync(join(root, file)));

function biome() {
  const args = ['check', '--error-on-warnings', ...(fix ? ['--write'] : []), '.'];
  return spawnSync(join(root, 'node_modules', '.bin', 'biome'), args, { cwd: root, stdio: 'inherit' }).status === 0;
}

function clangFormat() {
  const tool = which(`clang-format-${clangVersion}`, 'clang-format');
  if (!tool) {
    say('lint: clang-format is missing. Install with: sudo apt-get install -y clang-format');
    return false;
  }
  const sources = tracked.filter((file) => /^native\/.*\.(h|cpp|cu|cuh)$/.test(file));
  const mode = fix ? ['-i'] : ['--dry-run', '--Werror'];
  const clean = spawnSync(tool, [...mode, ...sources], { cwd: root, stdio: 'inherit' }).status === 0;
  const version = execFileSync(tool, ['--version'], { encoding: 'utf8' }).match(/version (\d+)/)?.[1];
  if (!clean && version !== clangVersion) {
    say(`lint: the above is clang-format ${version}'s view; the tree follows ${clangVersion}, so it does not count`);
    return true;
  }
  return clean;
}

function lengths() {
  const long = tracked
    .filter((file) => /\.(ts|mjs|h|cpp|cu|cuh)$/.test(file))
    .map((file) => ({ file, lines: readFileSync(join(root, file), 'utf8').split('\n').length - 1 }))
    .filter(({ lines }) => lines > maxLines);
  for (const { file, lines } of long) say(`lint: ${file} has ${lines} lines; split it (at most ${maxLines})`);
  return long.length === 0;
}

const results = [biome(), clangFormat(), lengths()];
if (results.every(Boolean)) say('lint: clean');
else {
  say(`lint: not clean${fix ? '' : '; npm run lint -- --fix repairs the formatting'}`);
  process.exitCode = 1;
}
