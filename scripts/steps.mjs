// What the scripts share: running a command with its output kept in a log, and naming a state by its contents.
import { execFileSync, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { createWriteStream, mkdirSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { which } from './toolchain.mjs';

export const root = fileURLToPath(new URL('..', import.meta.url));
export const state = join(root, '.setup');

/** Progress goes to stderr: the output of a demo or a benchmark stays clean. */
export const say = (text) => process.stderr.write(`${text}\n`);
export const seconds = (since) => `${((performance.now() - since) / 1000).toFixed(1)} s`;

/** All files under the paths (files or directories), sorted. */
export function files(...paths) {
  return paths.flatMap((path) => {
    const entry = statSync(path, { throwIfNoEntry: false });
    if (!entry) return [];
    if (entry.isFile()) return [path];
    return files(
      ...readdirSync(path)
        .sort()
        .map((name) => join(path, name)),
    );
  });
}

/** A hash of names and contents, and of whatever else the result depends on. */
export function fingerprint(paths, ...rest) {
  const hash = createHash('sha256').update(JSON.stringify(rest));
  for (const file of paths) hash.update(`\0${relative(root, file)}\0`).update(readFileSync(file));
  return hash.digest('hex');
}

/** Compilers run through ccache where it is, with paths relative to the tree, so that copies of the tree hit too. */
export function buildEnvironment(base = root) {
  const ccache = which('ccache');
  return {
    ...process.env,
    ...(ccache && { CMAKE_CXX_COMPILER_LAUNCHER: ccache, CMAKE_CUDA_COMPILER_LAUNCHER: ccache }),
    CCACHE_BASEDIR: base,
    CCACHE_NOHASHDIR: '1',
  };
}

/** nvcc, unless TOPKNOT_CUDA=0 asks for a build without it. */
export const nvcc = process.env.TOPKNOT_CUDA === '0' ? undefined : which('nvcc', '/usr/local/cuda/bin/nvcc');

/** The CMake option: ON where nvcc knows every GPU that the plugin is built for, which CUDA 12.8 is the first to do. */
export function cudaOption() {
  if (!nvcc) return 'TOPKNOT_CUDA=OFF';
  const [, major, minor] = /release (\d+)\.(\d+)/.exec(execFileSync(nvcc, ['--version'], { encoding: 'utf8' })) ?? [];
  const recent = Number(major) > 12 || (Number(major) === 12 && Number(minor) >= 8);
  if (!recent) say(`leaving the CUDA plugin out: ${nvcc} is CUDA ${major}.${minor}, older than 12.8`);
  return `TOPKNOT_CUDA=${recent ? 'ON' : 'OFF'}`;
}

/**
 * Runs a command, its output in a log file; on a terminal, shows how far a build is. Rejects with the end of the log.
 */
export function logged(command, args, { log, cwd = root, env = process.env, title = '' }) {
  mkdirSync(dirname(log), { recursive: true });
  return new Promise((resolve, reject) => {
    const out = createWriteStream(log);
    out.write(`$ ${[command, ...args].join(' ')}\n`);
    const child = spawn(command, args, { cwd, env, stdio: ['ignore', 'pipe', 'pipe'] });
    const show = (chunk) => {
      out.write(chunk);
      const at = /.*\[\s*(\d+%|\d+\/\d+)\]/s.exec(String(chunk))?.[1];
      if (at && process.stderr.isTTY) process.stderr.write(`\r${title} ${at}\x1b[K`);
    };
    child.stdout.on('data', show);
    child.stderr.on('data', show);
    child.on('error', reject);
    child.on('close', (code, signal) => {
      if (process.stderr.isTTY) process.stderr.write('\r\x1b[K');
      out.end(() => {
        if (code === 0) return resolve();
        const lines = readFileSync(log, 'utf8').trimEnd().split('\n');
        const errors = lines.filter((line) => /\berror\b|CMake Error|npm error/i.test(line)).slice(0, 5);
        const end = lines.slice(-40);
        reject(
          new Error(
            [
              `${command} ${args[0] ?? ''} ended with ${signal ?? code}. The end of ${relative(root, log)}:`,
              ...(errors.some((line) => !end.includes(line)) ? [...errors, '  ...'] : []),
              ...end,
            ].join('\n'),
          ),
        );
      });
    });
  });
}

/** Runs a command in the foreground; resolves with its exit code. */
export function run(command, args, options = {}) {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { cwd: root, stdio: 'inherit', ...options });
    child.on('error', reject);
    child.on('close', (code) => resolve(code ?? 1));
  });
}
