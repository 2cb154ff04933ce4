// Compiles the CUDA kernels for compute capability 8.0 and fails when one of the hot kernels spills registers, when nvcc
// warns, or when the list below names a kernel that is not there. Does nothing when it found the same sources clean before.
// Ends with 77 where there is no nvcc.
//   node scripts/cuda-spills.mjs
import { execFile } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { files, fingerprint, nvcc, root, say, seconds, state } from './steps.mjs';
import { jobs } from './toolchain.mjs';

/** Kernels in whose inner loops a spilled register would cost memory traffic. */
const hot = [
  'AlsLightRows',
  'CholeskyWork',
  'LuWork',
  'alsCgGroups',
  'alsCgRows',
  'attentionBackwardKeysMma',
  'attentionBackwardQueriesMma',
  'attentionMma',
  'embeddingBagSums',
  'gatherCopy',
  'layerNormRows',
  'matmulMma',
  'matmulTiles',
  'rankTiles',
  'reduceRows',
  'scoreEntries',
  'softmaxRows',
  'tensorTiles',
  'topkScan',
  'updateRows',
];

if (!nvcc) {
  say('cuda-spills: no nvcc here: nothing was checked');
  process.exit(77);
}

const native = (...path) => join(root, 'native', ...path);
const folder = native('cuda');
const clean = join(state, 'cuda-spills');
const inputs = fingerprint([...files(folder, native('backend'), native('core')), import.meta.filename], nvcc);
if (existsSync(clean) && readFileSync(clean, 'utf8') === inputs) {
  console.log('the same sources were clean before');
  process.exit(0);
}
const sources = readdirSync(folder).filter((name) => name.endsWith('.cu'));

/** What ptxas says of each kernel: its mangled name and the bytes it spills. */
async function compile(source) {
  const options = [
    '-std=c++20',
    '-arch=sm_80',
    '--expt-relaxed-constexpr',

    '-Xcompiler=-Wall,-Wextra',
    '-Xptxas=-v',
  ];
  const out = join(tmpdir(), `topknot-${process.pid}-${source}.cubin`);
  const args = [...options, '-I', native(), '-cubin', '-o', out];
  const { stdout, stderr } = await promisify(execFile)(nvcc, [...args, join(folder, source)], { maxBuffer: 1 << 26 });
  rmSync(out, { force: true });
  const text = stdout + stderr;
  const kernels = [];
  for (const [, name, spilled] of text.matchAll(/Function properties for (\S+)\n.*?(\d+) bytes spill stores/g))
    kernels.push({ name, spilled: Number(spilled) });
  return { source, kernels, warnings: text.split('\n').filter((line) => /warning/i.test(line)) };
}

const start = performance.now();
const waiting = [...sources];
const results = [];
await Promise.all(
  Array.from({ length: Math.min(jobs(), sources.length) }, async () => {
    for (let source = waiting.shift(); source; source = waiting.shift()) results.push(await compile(source));
  }),
);

const kernels = results.flatMap((result) => result.kernels);
const problems = results.flatMap(({ source, warnings }) => warnings.map((line) => `${source}: ${line}`));
for (const name of hot) {
  // In a mangled name the length stands before the word.
  const found = kernels.filter((kernel) => kernel.name.includes(`${name.length}${name}`));
  if (found.length === 0)
    problems.push(`${name}: no kernel has this name; correct the list in scripts/cuda-spills.mjs`);
  for (const kernel of found.filter((one) => one.spilled > 0))
    problems.push(`${name}: spills ${kernel.spilled} bytes (${kernel.name})`);
}
const cold = kernels.filter((kernel) => kernel.spilled > 0 && !hot.some((name) => kernel.name.includes(name)));
for (const kernel of cold)
  say(`cuda-spills: not in the list of hot kernels: ${kernel.name} spills ${kernel.spilled} bytes`);
for (const problem of problems) console.log(problem);
console.log(`${kernels.length} kernels of ${sources.length} files, ${problems.length} problems, ${seconds(start)}`);
process.exitCode = problems.length > 0 ? 1 : 0;
if (problems.length === 0) {
  mkdirSync(state, { recursive: true });
  writeFileSync(clean, inputs);
}
