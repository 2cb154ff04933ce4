// What a source build needs from the system, and what of it is missing. Ships in the package: no dependencies.
import { accessSync, constants, readFileSync, statSync } from 'node:fs';
import { availableParallelism, totalmem } from 'node:os';
import { delimiter, join } from 'node:path';

/** The first executable of these names on PATH, or undefined. */
export function which(...names) {
  for (const name of names) {
    for (const dir of name.includes('/') ? [''] : (process.env.PATH ?? '').split(delimiter)) {
      const file = dir ? join(dir, name) : name;
      try {
        accessSync(file, constants.X_OK);
        if (statSync(file).isFile()) return file;
      } catch {
        // Not in this directory.
      }
    }
  }
  return undefined;
}

/** Where CMake's find_path looks too. */
function header(...paths) {
  const prefixes = (process.env.CMAKE_PREFIX_PATH ?? '').split(/[:;]/).filter(Boolean);
  for (const prefix of [...prefixes, '/usr', '/usr/local']) {
    for (const path of paths) {
      const file = join(prefix, 'include', path);
      if (statSync(file, { throwIfNoEntry: false })) return file;
    }
  }
  return undefined;
}

function highwayTooOld(file) {
  const major = /define HWY_MAJOR (\d+)/.exec(readFileSync(file, 'utf8'))?.[1];
  return major !== undefined && Number(major) < 1;
}

/** [{ what, apt }] for every missing requirement; empty when a build can start. */
export function missingTools() {
  const highway = header('hwy/highway.h');
  const missing = [
    { what: 'a C++20 compiler', apt: 'g++', found: which(process.env.CXX || 'c++', 'g++', 'clang++') },
    { what: 'CMake', apt: 'cmake', found: which('cmake') },
    { what: 'make or ninja', apt: 'make', found: which('ninja', 'make') },
    { what: 'Highway', apt: 'libhwy-dev', found: highway },
    { what: 'Eigen', apt: 'libeigen3-dev', found: header('eigen3/Eigen/Dense', 'Eigen/Dense') },
  ].filter((tool) => !tool.found);
  if (highway && highwayTooOld(highway)) {
    missing.push({ what: `Highway 1.0 or later (${highway} is older; Debian 12 and Ubuntu 24.04 have it)` });
  }
  return missing;
}

/** Compile jobs at once: a core each, but 1.5 GB of memory each too. TOPKNOT_JOBS sets it. */
export function jobs() {
  const asked = Number(process.env.TOPKNOT_JOBS);
  if (asked >= 1) return Math.floor(asked);
  return Math.max(1, Math.min(availableParallelism(), Math.floor(totalmem() / 1.5e9)));
}
