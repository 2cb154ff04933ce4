// Wrong arguments of every operation: the error is a TopknotError that names the argument, never a TypeError from within.
import { describe, expect, it } from 'vitest';
import * as topknot from '../../lib/index.js';
import { EmbeddingTable, MultiHeadAttention, readSafetensors, TopknotError, tensor } from '../../lib/index.js';

// What JavaScript allows: any arguments to any function.
type Callable = (...args: unknown[]) => unknown;
const functions = topknot as unknown as Record<string, Callable>;
const call =
  (name: string, ...args: unknown[]) =>
  () =>
    functions[name]!(...args);

async function errorOf(f: () => unknown): Promise<unknown> {
  try {
    await f();
  } catch (error) {
    return error;
  }
  return 'no error';
}

async function expectRefused(f: () => unknown, message: RegExp): Promise<void> {
  const error = await errorOf(f);
  expect(error).toBeInstanceOf(TopknotError);
  expect((error as TopknotError).message).toMatch(message);
  expect((error as TopknotError).message).not.toMatch(/typed array but received undefined/);
}

const x = tensor([
  [1, 2],
  [3, 4],
]);
const ids = Int32Array.of(0, 1);
const layer = await MultiHeadAttention.create(2, 1);
const sequence = x.reshape([1, 2, 2]);
const unary = ['exp', 'log', 'sqrt', 'relu', 'sigmoid', 'tanh', 'silu', 'gelu', 'layerNorm'];
const softmaxes = ['softmax', 'logSoftmax'];
const binary = ['add', 'subtract', 'multiply', 'divide'];
const reductions = ['sum', 'mean', 'max'];

type Operation = [name: string, args: [string, unknown][]];
const taking = (args: Record<string, unknown>, ...names: string[]): Operation[] =>
  names.map((name) => [name, Object.entries(args)]);
const backward = (names: string[]) => names.map((name) => `${name}Backward`);

/** Each with good arguments by name, of which each in turn is replaced by a bad one. */
const operations: Operation[] = [
  ...taking({ x }, ...unary, ...softmaxes, ...reductions),
  ...taking({ outGradient: x, x }, ...backward([...unary, ...reductions])),
  ...taking({ outGradient: x, out: x }, ...backward(softmaxes)),
  ...taking({ a: x, b: x }, ...binary, 'matmul'),
  ...taking({ outGradient: x, a: x, b: x }, ...backward(binary)),
  ...taking({ outGradient: x, a: x, b: x, out: x }, 'matmulBackward'),
  ...taking({ q: x, k: x, v: x }, 'attention'),
  ...taking({ outGradient: x, q: x, k: x, v: x, saved: { out: x, logSumExp: x } }, 'attentionBackward'),
  ...taking({ queries: x, items: x, k: 1 }, 'topK', 'topKSync'),
  ...taking({ table: x, ids }, 'gather', 'gatherSync', 'embeddingBag', 'embeddingBagSync'),
  ...taking({ gradient: x, table: x, ids }, 'gatherBackward', 'embeddingBagBackward'),
  ...taking({ table: x }, 'quantizeRows'),
  ...taking({ body: () => x }, 'scope'),
  ...taking({ model: {} }, 'evaluate'),
];

describe('operations', () => {
  it.each(operations)('%s names an argument that is missing, null, an array or a string', async (name, args) => {
    for (const [i, [argument]] of args.entries()) {
      for (const bad of [undefined, null, [[1, 2]], 'x', {}]) {
        const given = args.map(([, good], j) => (i === j ? bad : good));
        await expectRefused(call(name, ...given), new RegExp(`^${argument}\\b.*received `));
      }
    }
    await expectRefused(call(name), new RegExp(`^${args[0]![0]}: expected .* received undefined`));
  });

  const method =
    (object: object, name: string, ...args: unknown[]) =>
    () =>
      (object as Record<string, Callable>)[name]!(...args);
  const made = (parameters: unknown, heads: unknown) => () =>
    new MultiHeadAttention(parameters as never, heads as never);

  it.each<[string, () => unknown, RegExp]>([
    ['tensor([1], null)', call('tensor', [1], null), /^options: expected an object but received null/],
    ['tensor([1], { type })', call('tensor', [1], { type: 'int8' }), /^options.type: no such option/],
    ['full([2], null)', call('full', [2], null), /^options: /],
    ['full()', call('full'), /^shape: /],
    ['matmul(x, x, null)', call('matmul', x, x, null), /^options: /],
    ['softmaxBackward(x)', call('softmaxBackward', x), /^out: /],
    ['quantizeRows(x, "int2")', call('quantizeRows', x, 'int2'), /^options: expected an object but received 'int2'/],
    ['quantizeRows(x, { bit })', call('quantizeRows', x, { bit: 4 }), /^options.bit: no such option/],
    ['quantizeRows(x, { bits: 2 })', call('quantizeRows', x, { bits: 2 }), /^bits: /],
    ['gather with half a quantized table', call('gather', { data: x }, ids), /^table\.scale: expected a Tensor/],
    ['embeddingBag offsets', call('embeddingBag', x, ids, [0, 2]), /^offsets: .* received an array/],
    ['embeddingBag weights', call('embeddingBag', x, ids, undefined, { weights: [1] }), /^weights: .* an array/],
    ['embeddingBagBackward options', call('embeddingBagBackward', x, x, ids, undefined, null), /^options: /],
    ['attentionBackward saved.out', call('attentionBackward', x, x, x, x, { out: 1 }), /^saved\.out: /],
    ['evaluate of nothing', call('evaluate', { users: {}, items: {} }, null), /^data: expected/],
    ['evaluate k', call('evaluate', { users: {}, items: {} }, {}, { k: {} }), /^k: expected/],
    ['evaluate signal', call('evaluate', {}, {}, { signal: 1 }), /^signal: /],
    ['readSafetensors()', call('readSafetensors'), /^path: /],
    ['readSafetensors names', () => readSafetensors('x', { names: 'x' as never }), /^names: .* received 'x'/],
    ['readSafetensors names of numbers', call('readSafetensors', 'x', { names: [1] }), /^names: .* received 1/],
    ['readSafetensors name', call('readSafetensors', 'x', { name: ['x'] }), /^options.name: no such option/],
    ['mapSafetensors options', call('mapSafetensors', 'x', null), /^options: /],
    ['mapSafetensors option', call('mapSafetensors', 'x', { random: true }), /^options.random: no such option/],
    ['mapSafetensors randomAccess', call('mapSafetensors', 'x', { randomAccess: 1 }), /^randomAccess: /],
    ['EmbeddingTable.from(null)', method(EmbeddingTable, 'from', null), /^start: expected .* received null/],
    ['EmbeddingTable.from({})', method(EmbeddingTable, 'from', {}), /^start\.table: expected a Tensor/],
    ['EmbeddingTable.create(shape, null)', method(EmbeddingTable, 'create', [2, 2], null), /^options: /],
    ['EmbeddingTable.create(shape, { x })', method(EmbeddingTable, 'create', [2, 2], { x: 1 }), /^options.x: no such/],
    ['MultiHeadAttention of 5', made(5, 1), /^parameters: expected .* received 5/],
    ['MultiHeadAttention of an object', made({}, 1), /^parameters: expected .* an object/],
    ['MultiHeadAttention of strings', made(['ab'], 1), /^parameters: expected .* received 'ab'/],
    [
      'MultiHeadAttention of numbers',
      made([['out_proj.weight', 1]], 1),
      /^parameters 'out_proj.weight': .* received 1/,
    ],
    ['MultiHeadAttention.create options', method(MultiHeadAttention, 'create', 2, 1, null), /^options: /],
    ['MultiHeadAttention.load options', method(MultiHeadAttention, 'load', 'x', 1, null), /^options: /],
    ['forward()', method(layer, 'forward'), /^query: expected a Tensor but received undefined/],
    ['forward(x, null)', method(layer, 'forward', sequence, null), /^key: expected a Tensor.* received null/],
    ['forward(x, options)', method(layer, 'forward', sequence, { causal: true }), /^key: .*fourth argument/],
    ['forward(x, x, options)', method(layer, 'forward', sequence, sequence, {}), /^value: .*fourth argument/],
    ['forward options', method(layer, 'forward', sequence, undefined, undefined, null), /^options: /],
    ['backward(x, {})', method(layer, 'backward', sequence, {}), /^result: expected/],
    ['backward(x)', method(layer, 'backward', sequence), /^result: expected/],
  ])('%s', async (_, f, message) => {
    await expectRefused(f, message);
  });

  it('EmbeddingTable names what a call got wrong', async () => {
    const table = await EmbeddingTable.create([2, 2]);
    await expectRefused(method(table, 'lookup'), /^ids: /);
    await expectRefused(method(table, 'bag', ids, [0, 2]), /^offsets: /);
    await expectRefused(method(table, 'bag', ids, null), /^offsets: /);
    await expectRefused(method(table, 'bag', ids, undefined, null), /^options: /);
    await expectRefused(method(table, 'backward'), /^(gradient|ids): /);
    await expectRefused(method(table, 'backward', null, ids), /^gradient: /);
    await expectRefused(method(table, 'backward', [[1, 2]], ids, Int32Array.of(0, 2)), /^gradient: /);
    table.dispose();
  });
});
