// Peers are optional: found where the caller has installed them, skipped with a line where not.
import { existsSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

const bench = fileURLToPath(new URL('..', import.meta.url));
const folders = [process.env.PEERS_NODE, bench].filter((f) => f && existsSync(`${f}/node_modules`));

/** `{ module, version }` of an npm package, or throws an error that says where it was looked for. */
export function find(name) {
  for (const folder of folders) {
    const require = createRequire(resolve(folder, 'package.json'));
    let entry;
    try {
      entry = require.resolve(name);
    } catch {
      continue; // not in this folder
    }
    return { module: require(name), version: versionAbove(entry, name) };
  }
  throw new Error(`${name} is not in ${folders.map((f) => `${f}/node_modules`).join(' or ') || 'bench/node_modules'}`);
}

function versionAbove(entry, name) {
  for (let folder = dirname(entry); folder !== dirname(folder); folder = dirname(folder)) {
    const file = `${folder}/package.json`;
    const meta = existsSync(file) ? JSON.parse(readFileSync(file, 'utf8')) : {};
    if (meta.name === name) return meta.version;
  }
  return 'unknown';
}
