// Every operation on the emulated GPU: the results of the CPU, made where the arguments are; arguments on different
// devices are refused.
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { TopknotError, tensor } from '../../lib/index.js';
import { native } from '../../lib/native.js';
import { type Case, cases, nameOf, placed, resultsOf, valuesOf } from './cases.js';

const rows = [...readFileSync('native/ops/ops.def', 'utf8').matchAll(/^(OP|DEVICE_OP)\(.*?, (\w+), \(/gm)];
const operationsOf = (kind: string) => rows.filter((row) => row[1] === kind).map((row) => row[2]!);
/** Tested by tensors.test.ts. */
const ofTensors = ['tensorInfo', 'tensorFrom', 'toDevice'];
/** Tested by flat-index.test.ts. */
const ofIndexes = ['indexSearch', 'indexPlace', 'keepRows'];

async function errorOf(body: () => unknown): Promise<TopknotError> {
  try {
    await body();
  } catch (error) {
    expect(error).toBeInstanceOf(TopknotError);
    return error as TopknotError;
  }
  return expect.unreachable('expected an error');
}

function expectNear(actual: number[], expected: number[], tolerance: number) {
  expect(actual.length).toBe(expected.length);
  const scale = Math.max(1, ...expected.filter(Number.isFinite).map(Math.abs));
  for (const [i, e] of expected.entries()) {
    if (!Object.is(actual[i], e) && !(Math.abs(actual[i]! - e) <= tolerance * scale))
      expect.unreachable(`element ${i}: ${actual[i]} instead of ${e}`);
  }
}

describe('the table of operations', () => {
  it('has a case for each that takes tensors on a GPU', () => {
    const tested = new Set([...cases.map((one) => one.operation), ...ofTensors, ...ofIndexes]);
    expect(operationsOf('DEVICE_OP').filter((name) => !tested.has(name))).toEqual([]);
  });
});

describe('operations on a GPU', () => {
  it.each(cases.map((one): [string, Case] => [nameOf(one), one]))('%s', async (_, one) => {
    const args = one.args();
    const onCpu = resultsOf(one, args);
    const onGpu = resultsOf(one, placed(one, args, 'cuda'));
    const found = await valuesOf(onGpu);
    for (const t of onGpu) expect(t.device).toBe(one.toHost ? 'cpu' : 'cuda:0');
    expect(onGpu.map((t) => [t.dtype, t.shape])).toEqual(onCpu.map((t) => [t.dtype, t.shape]));
    const unique = one.unique ?? ((r) => r);
    const expected = unique(await valuesOf(onCpu));
    for (const [i, actual] of unique(found).entries()) expectNear(actual, expected[i]!, one.tolerance ?? 2e-6);
  });
});

describe('arguments on different devices', () => {
  const pairs = cases.flatMap((one) =>
    Object.keys(one.args())
      .slice(1)
      .map((name): [string, string, Case] => [nameOf(one), name, one]),
  );
  it.each(pairs)('%s: %s', async (_, name, one) => {
    const args = one.args();
    const [first] = Object.keys(args);
    for (const [device, other] of [
      ['cuda', 'cpu'],
      ['cpu', 'cuda'],
      ['cuda', 'cuda:1'],
    ] as const) {
      if (one.anywhere?.includes(name) || (one.host?.includes(name) && other === 'cpu')) continue;
      const mixed = placed(one, args, device, { [name]: other });
      const error = await errorOf(async () => valuesOf(resultsOf(one, mixed)));
      expect(error.code).toBe('ERR_DEVICE');
      const told = error.message;
      if (one.host?.includes(name)) {
        expect(told).toMatch(new RegExp(`^${name}: expected to be on device 'cpu' but is on 'cuda:`));
        continue;
      }
      expect(told).toContain(device === 'cuda' ? "'cuda:0'" : "'cpu'");
      expect(told).toContain(other === 'cuda' ? "'cuda:0'" : `'${other}'`);
      expect(told).toMatch(new RegExp(`\\b${name}\\b`));
      expect(told).toMatch(new RegExp(`as (${first}|q|a|x|out|factor|table\\.data|items) (is|are)`));
    }
  });
});

// The arguments of an operation by their types, with a tensor on the GPU for every tensor.
const gpu = tensor(Float32Array.of(1, 2), { device: 'cuda' });

/** "a: number, b: { c: X; }" cut at its separators, those within brackets left alone. */
function split(text: string, separator: string): string[] {
  const parts: string[] = [];
  let depth = 0;
  let part = '';
  for (const c of text) {
    if ('({['.includes(c)) depth++;
    if (')}]'.includes(c)) depth--;
    if (c === separator && depth === 0) {
      parts.push(part.trim());
      part = '';
    } else part += c;
  }
  return [...parts, part.trim()].filter((p) => p !== '');
}

function sampleOf(type: string): unknown {
  if (type.startsWith('readonly (')) return [sampleOf(type.slice(10, type.lastIndexOf(')')))];
  if (type.startsWith('{')) {
    const end = type.lastIndexOf('}');
    const members = split(type.slice(1, end), ';').map((member) => split(member, ':'));
    return Object.fromEntries(members.map(([name, ...of]) => [name!.replace('?', ''), sampleOf(of.join(': '))]));
  }
  if (type.startsWith('Handle')) return gpu.handle;
  if (type.startsWith("'")) return type.split("'")[1];
  if (type.startsWith('number')) return 1;
  if (type.startsWith('boolean')) return false;
  if (type.startsWith('string')) return 'x';
  if (type.startsWith('Resource')) return undefined;
  throw new Error(`no value for type ${type}`);
}

describe('what runs on the CPU alone', () => {
  const signatures = new Map(
    (native as unknown as { types: string }).types
      .split('\n')
      .map((line) => /^ {2}(\w+)\((.*)\): (.*);$/.exec(line))
      .filter((found) => found !== null)
      .map(([, name, parameters]) => [name!, split(parameters!, ',')]),
  );
  const takesTensors = operationsOf('OP').filter((name) => {
    const parameters = signatures.get(`${name}Sync`) ?? signatures.get(name)!;
    return parameters.some((p) => p.includes('Handle')) && !parameters.some((p) => p.includes('Resource'));
  });

  it.each(takesTensors)('%s says so', async (name) => {
    const callable = (signatures.has(`${name}Sync`) ? `${name}Sync` : name) as keyof typeof native;
    const args = signatures.get(callable)!.map((p) => sampleOf(p.slice(p.indexOf(':') + 1).trim()));
    const error = await errorOf(() => (native[callable] as (...args: unknown[]) => unknown)(...args));
    expect(error.code).toBe('ERR_DEVICE');
    expect(error.message).toContain("'cuda:0'");
    expect(error.message).toContain(`${name} is not available there`);
  });
});
