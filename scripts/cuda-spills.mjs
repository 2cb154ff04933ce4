// Compiles the CUDA kernels for compute capability 8.0, and those of 9.0a for that, and fails when one of the hot kernels
// spills registers, when nvcc warns, or when the lists below name a kernel that is not there. Does nothing when it found the same sources clean before.
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

/** Likewise those of compute capability 9.0a (native/cuda/ptx90.h), which are empty elsewhere, by their source. */
const hot90a = {
  'attention.cu': ['attentionBackwardWgmma', 'attentionWgmma'],
  'factorization.cu': ['matmulWgmma'],
  'search.cu': ['topkWgmma'],
};

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
async function compile({ source, architecture }) {
  const options = [
    '-std=c++20',
    `-gencode=arch=compute_${architecture},code=sm_${architecture}`,
    '--expt-relaxed-constexpr',
    '-Xcompiler=-Wall,-Wextra',
    '-Xptxas=-v',
  ];
  const out = join(tmpdir(), `topknot-${process.pid}-${architecture}-${source}.cubin`);
  const args = [...options, '-I', native(), '-cubin', '-o', out];
  const { stdout, stderr } = await promisify(execFile)(nvcc, [...args, join(folder, source)], { maxBuffer: 1 << 26 });
  rmSync(out, { force: true });
  const text = stdout + stderr;
  const kernels = [];
  for (const [, name, spilled] of text.matchAll(/Function properties for (\S+)\n.*?(\d+) bytes spill stores/g))
    kernels.push({ name, spilled: Number(spilled) });
  // Notes C7510 to C7519: ptxas serialises wgmma, or waits where the code does not.
  const warnings = text.split('\n').filter((line) => /warning|\(C751\d\)/i.test(line));
  return { source, architecture, kernels, warnings };
}

const start = performance.now();
const waiting = [
  ...sources.map((source) => ({ source, architecture: '80' })),
  ...Object.keys(hot90a).map((source) => ({ source, architecture: '90a' })),
];
const results = [];
await Promise.all(
  Array.from({ length: Math.min(jobs(), waiting.length) }, async () => {
    for (let next = waiting.shift(); next; next = waiting.shift()) results.push(await compile(next));
  }),
);

const kernels = results.filter((result) => result.architecture === '80').flatMap((result) => result.kernels);
const problems = results.flatMap(({ source, warnings }) => warnings.map((line) => `${source}: ${line}`));
const hotOf = [
  ...hot.map((name) => ({ name, of: kernels })),
  ...results
    .filter((result) => result.architecture === '90a')
    .flatMap((result) => hot90a[result.source].map((name) => ({ name, of: result.kernels }))),
];
for (const { name, of } of hotOf) {
  // In a mangled name the length stands before the word.
  const found = of.filter((kernel) => kernel.name.includes(`${name.length}${name}`));
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
