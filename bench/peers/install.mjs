// npm run bench:peers: installs the peers of bench/package-lock.json into bench/node_modules, from the npm registry alone.
// onnxruntime-node would fetch CUDA libraries, and node-gyp, which compiles hnswlib-node, the headers of Node where they do
// not lie beside it.
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';

const env = { ...process.env, ONNXRUNTIME_NODE_INSTALL: 'skip' };
const prefix = dirname(dirname(process.execPath));
if (existsSync(`${prefix}/include/node/node.h`)) env.npm_config_nodedir ??= prefix;
else console.error(`no headers of Node under ${prefix}/include/node: node-gyp will fetch them to compile hnswlib-node`);
const cwd = fileURLToPath(new URL('..', import.meta.url));
const { status } = spawnSync('npm', ['ci', '--no-audit', '--no-fund'], { cwd, env, stdio: 'inherit' });
process.exitCode = status ?? 1;
