// What a result depends on: written beside it.
import { execFileSync } from 'node:child_process';
import { cpus, hostname, loadavg, totalmem } from 'node:os';
import { fileURLToPath } from 'node:url';
import { isa } from '../../dist/index.js';

const root = fileURLToPath(new URL('../..', import.meta.url));

function git(...args) {
  try {
    return execFileSync('git', args, { cwd: root, encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim();
  } catch {
    return null; // not a git checkout: an installed package
  }
}

export function machine({ threads, cacheMib, peers, command }) {
  const changed = git('status', '--porcelain', '--untracked-files=no', '--', '.', ':!bench/results');
  return {
    date: new Date().toISOString(),
    command,
    host: hostname(),
    cpu: cpus()[0]?.model,
    cores: cpus().length,
    last_level_cache_mib: cacheMib,
    memory_gib: Math.round(totalmem() / 2 ** 30),
    load_at_start: loadavg()[0],
    platform: `${process.platform}-${process.arch}`,
    node: process.version,
    isa: isa(),
    threads,
    commit: git('rev-parse', 'HEAD'),
    uncommitted_changes: changed === null ? null : changed !== '',
    peers,
  };
}
