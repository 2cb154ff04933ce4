#!/usr/bin/env node
// npx topknot doctor: what topknot runs on here, and what to do where something is missing.
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { addonPath, platform, root } from './addon.js';

const require = createRequire(import.meta.url);
const version = (path: string): string => JSON.parse(readFileSync(path, 'utf8')).version;
const line = (name: string, value: string) => console.log(`  ${name.padEnd(9)} ${value}`);

function duckdb(): string {
  try {
    // Its entry is lib/index.js; package.json is not among its exports.
    return version(join(dirname(require.resolve('@duckdb/node-api')), '..', 'package.json'));
  } catch {
    return 'not installed; reading CSV, Parquet and JSON lines needs it: npm install @duckdb/node-api';
  }
}

async function doctor(): Promise<void> {
  console.log(`topknot ${version(join(root, 'package.json'))}`);
  line('node', process.version);
  line('platform', platform());
  try {
    const { cudaProblem, device, devices, isa, isas, threads } = await import('./index.js');
    line('addon', addonPath());
    line('cpu', `${isa()} (available: ${isas().join(', ')}; TOPKNOT_ISA chooses)`);
    line('threads', `${threads()} (TOPKNOT_THREADS or setThreads() chooses)`);
    const gigabytes = (bytes: number) => `${(bytes / 2 ** 30).toFixed(1)} GiB`;
    const gpus = devices().filter((one) => one.device !== 'cpu');
    const problem = (name: string): string => {
      try {
        device(name);
        return '';
      } catch (error) {
        return `; cannot be used: ${(error as Error).message}`;
      }
    };
    for (const gpu of gpus) {
      const what = `${gpu.name}, ${gpu.isa}, ${gigabytes(gpu.totalBytes)}, driver for CUDA ${gpu.driver}`;
      line(gpu.device, what + problem(gpu.device));
    }
    if (gpus.length === 0) line('cuda', `none: ${cudaProblem()}`);
  } catch (error) {
    line('addon', (error as Error).message);
    process.exitCode = 1;
  }
  line('duckdb', duckdb());
}

const [command] = process.argv.slice(2);
if (command === 'doctor') await doctor();
else {
  console.log('usage: topknot doctor     what topknot runs on here, and what to do where something is missing');
  process.exitCode = command === undefined || command === '--help' ? 0 : 2;
}
