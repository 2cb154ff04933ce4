import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { cudaProblem, devices, isa } from '../../lib/index.js';

describe('devices', () => {
  it('start with the CPU and its instruction set', () => {
    const [cpu] = devices();
    expect(cpu).toMatchObject({ device: 'cpu', isa: isa() });
    expect(cpu!.totalBytes).toBeGreaterThan(2 ** 20);
  });

  it('are either there or explained', () => {
    const gpus = devices().slice(1);
    expect(gpus.every((gpu, i) => gpu.device === `cuda:${i}` && gpu.isa.startsWith('sm_'))).toBe(true);
    expect(cudaProblem() === '').toBe(gpus.length > 0);
  });
});

describe('topknot doctor', () => {
  const doctor = (args: string[]) => execFileSync(process.execPath, ['dist/cli.js', ...args], { encoding: 'utf8' });

  it('names the version, the addon, the instruction set and the threads', () => {
    const text = doctor(['doctor']);
    const { version } = JSON.parse(readFileSync('package.json', 'utf8'));
    expect(text).toContain(`topknot ${version}`);
    expect(text).toMatch(/addon +\S+topknot\S*\.node/);
    expect(text).toMatch(/cpu +(baseline|avx2|avx512|neon) /);
    expect(text).toMatch(/cuda/);
  });

  it('refuses other commands', () => {
    expect(() => doctor(['nurse'])).toThrow();
  });
});
