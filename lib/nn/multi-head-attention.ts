import { integer, knownOptions } from '../check.js';
import { device as named } from '../device.js';
import { expected, TopknotError } from '../errors.js';
import { readSafetensors, writeSafetensors } from '../format/safetensors.js';
import { type JobOptions, runJob } from '../job.js';
import { native } from '../native.js';
import { type AttentionOptions, type AttentionTensors, attention, attentionBackward } from '../ops/attention.js';
import { add } from '../ops/elementwise.js';
import { matmul, matmulBackward } from '../ops/matmul.js';
import { full, handleOf, Tensor } from '../tensor.js';

type Floats = Tensor<'float32'>;

export interface MultiHeadAttentionInit {
  /** Columns of keys, where they are not as wide as queries. */
  keyDim?: number | undefined;
  /** Columns of values, where they are not as wide as queries. */
  valueDim?: number | undefined;
  /** Whether the projections add a bias; true unless given. */
  bias?: boolean | undefined;
  /** Of the random start; 42 unless given. */
  seed?: number | undefined;
  /** Where the layer lives: 'cpu' unless given; 'cuda', 'cuda:1', ... or 'auto', see `device()`. */
  device?: string | undefined;
}

/** What `attention` takes, but for packed sequences. `keyMask` is [batch, keys], and false hides a key. */
export type MultiHeadAttentionOptions = Omit<AttentionOptions, 'queryOffsets' | 'keyOffsets'>;

/** The result of `forward`, with what `backward` needs of it. */
export interface MultiHeadAttentionResult {
  /** float32 [batch, queries, embedDim] */
  readonly out: Floats;
  /** @internal */
  readonly saved: Saved;
}

/** float32 gradients of a loss. */
export interface MultiHeadAttentionGradients {
  /** Of the query; where it served as key or value, too, the sum. */
  query: Floats;
  /** Of the key, where one was given; where it served as value, too, the sum. */
  key: Floats | undefined;
  /** Of the value, where one was given. */
  value: Floats | undefined;
  /** Of the bias option, where one was given. */
  bias: Floats | undefined;
  /** Of the parameters, by their names. */
  parameters: ReadonlyMap<string, Floats>;
}

/** One of q, k and v: its input, its weight, and both multiplied. */
interface Projection {
  input: Floats;
  weight: Floats;
  bias: Floats | undefined;
  out: Floats;
}

interface Saved {
  projections: readonly [Projection, Projection, Projection];
  /** Whether key and value were given. */
  given: readonly [boolean, boolean];
  heads: readonly [Floats, Floats, Floats];
  attention: AttentionTensors;
  options: AttentionOptions;
  merged: Floats;
}

const joined = ['in_proj_weight'] as const;
const separate = ['q_proj_weight', 'k_proj_weight', 'v_proj_weight'] as const;
const optional = ['in_proj_bias', 'out_proj.bias'] as const;
const optionNames = [
  'causal',
  'window',
  'scale',
  'keyMask',
  'bias',
  'dropout',
  'seed',
] as const satisfies readonly (keyof MultiHeadAttentionOptions)[];
const allNames = [...joined, ...separate, ...optional, 'out_proj.weight'] as const;

/**
 * Multi-head attention with its projections, with the parameters of PyTorch's `nn.MultiheadAttention` under its names:
 * `in_proj_weight` [3E, E], the rows of q, k and v one after the other, or, where keys or values have other widths than
 * queries, `q_proj_weight` [E, E], `k_proj_weight` [E, keyDim] and `v_proj_weight` [E, valueDim]; `in_proj_bias` [3E];
 * `out_proj.weight` [E, E] and `out_proj.bias` [E]. Head h has the columns [h E / heads, (h + 1) E / heads).
 *
 * Inputs are float32 [batch, length, columns]. All is queued on the stream: `forward` and `backward` return at once.
 *
 * @example
 * const layer = await MultiHeadAttention.load('sasrec.safetensors', 2, { prefix: 'attention_layers.0.' });
 * const { out } = layer.forward(history, undefined, undefined, { causal: true, keyMask });
 * @see Vaswani et al. 2017, "Attention is all you need", 3.2.2
 */
export class MultiHeadAttention {
  readonly heads: number;
  /** Columns of queries and of the result. */
  readonly embedDim: number;
  readonly keyDim: number;
  readonly valueDim: number;
  /** 'cpu' or 'cuda:0', ...: where the parameters are, inputs must be, and results and gradients are left. */
  readonly device: string;
  /** float32, by PyTorch's names. */
  readonly parameters: ReadonlyMap<string, Floats>;
  readonly #weights: readonly [Floats, Floats, Floats];
  readonly #biases: readonly (Floats | undefined)[];

  /**
   * @param parameters by PyTorch's names, all on one device; kept, not copied
   * @param heads must divide the columns of queries
   * @throws ERR_ARGUMENT for a name that is missing or unknown, ERR_SHAPE, ERR_DTYPE; ERR_SHAPE for heads that do not divide;
   * ERR_DEVICE for parameters on several devices
   */
  constructor(parameters: Iterable<readonly [string, Tensor]>, heads: number) {
    const all = new Map(checkPairs(parameters));
    for (const name of all.keys())
      if (!(allNames as readonly string[]).includes(name))
        throw new TopknotError('ERR_ARGUMENT', `parameters: no parameter is called '${name}'`);
    const isJoined = all.has('in_proj_weight');
    for (const name of [...(isJoined ? joined : separate), 'out_proj.weight'])
      if (!all.has(name)) throw new TopknotError('ERR_ARGUMENT', `parameters: expected '${name}'`);
    if (isJoined && separate.some((name) => all.has(name)))
      throw new TopknotError('ERR_ARGUMENT', `parameters: expected 'in_proj_weight' or '${separate[0]}', not both`);
    const width = all.get('out_proj.weight')!.shape[0] ?? 0;
    const columns = (name: string) => all.get(name)!.shape[1] ?? 0;
    this.embedDim = width;
    this.keyDim = isJoined ? width : columns('k_proj_weight');
    this.valueDim = isJoined ? width : columns('v_proj_weight');
    this.heads = dividing(heads, width);
    const shapes: Record<(typeof allNames)[number], readonly number[]> = {
      in_proj_weight: [3 * width, width],
      q_proj_weight: [width, width],
      k_proj_weight: [width, this.keyDim],
      v_proj_weight: [width, this.valueDim],
      in_proj_bias: [3 * width],
      'out_proj.weight': [width, width],
      'out_proj.bias': [width],
    };
    this.device = all.get('out_proj.weight')!.device;
    for (const [name, t] of all)
      expectFloats(`parameters '${name}'`, t, shapes[name as keyof typeof shapes], this.device, "'out_proj.weight'");
    this.parameters = all as ReadonlyMap<string, Floats>;
    const third = (name: string, i: number): Floats =>
      new Tensor(native.sliceRows(all.get(name)!.handle, i * width, (i + 1) * width));
    const thirds = <T>(make: (i: number) => T): [T, T, T] => [make(0), make(1), make(2)];
    this.#weights = thirds((i) => (isJoined ? third('in_proj_weight', i) : (all.get(separate[i]!) as Floats)));
    this.#biases = thirds((i) => (all.has('in_proj_bias') ? third('in_proj_bias', i) : undefined));
  }

  /**
   * A layer with random weights, as PyTorch starts it: uniform within √(6 / (rows + columns)) (Glorot and Bengio 2010) for
   * what comes in, within 1 / √embedDim for what goes out, and biases of 0.
   */
  static async create(
    embedDim: number,
    heads: number,
    options: MultiHeadAttentionInit = {},
  ): Promise<MultiHeadAttention> {
    knownOptions(options, ['keyDim', 'valueDim', 'bias', 'seed', 'device']);
    const { bias = true } = options;
    const where = named(options.device ?? 'cpu');
    if (typeof bias !== 'boolean') expected('bias', 'a boolean', bias);
    const seed = integer('seed', options.seed ?? 42, 0, 2 ** 50);
    dividing(heads, integer('embedDim', embedDim, 1));
    const keyDim = integer('keyDim', options.keyDim ?? embedDim, 1);
    const valueDim = integer('valueDim', options.valueDim ?? embedDim, 1);
    const shapes: [string, number[]][] =
      keyDim === embedDim && valueDim === embedDim
        ? [['in_proj_weight', [3 * embedDim, embedDim]]]
        : [
            ['q_proj_weight', [embedDim, embedDim]],
            ['k_proj_weight', [embedDim, keyDim]],
            ['v_proj_weight', [embedDim, valueDim]],
          ];
    shapes.push(['out_proj.weight', [embedDim, embedDim]]);
    const parameters = shapes.map(async ([name, shape], i) => {
      const bound = name === 'out_proj.weight' ? 1 / Math.sqrt(embedDim) : Math.sqrt(6 / (shape[0]! + shape[1]!));
      const handle = await runJob('long', {}, (control) =>
        native.randomValues(control, 'float32', shape, 'uniform', bound / Math.sqrt(3), seed * 4 + i, undefined),
      );
      return [name, moved(new Tensor(handle), where)] as [string, Tensor];
    });
    const all = new Map(await Promise.all(parameters));
    const zeros = (count: number) => full([count], { device: where });
    if (bias) all.set('in_proj_bias', zeros(3 * embedDim)).set('out_proj.bias', zeros(embedDim));
    return new MultiHeadAttention(all, heads);
  }

  /**
   * Reads the parameters from a safetensors file, such as the state of a PyTorch module; other tensors in it are ignored.
   * @param options.prefix what stands before the names in the file, its point included: 'encoder.attention.'
   * @param options.device where the layer is to live; 'cpu' unless given
   * @throws ERR_IO, ERR_FORMAT; ERR_ARGUMENT for a file without these names; ERR_SHAPE, ERR_DTYPE, ERR_DEVICE
   */
  static async load(
    path: string,
    heads: number,
    options: JobOptions & { prefix?: string | undefined; device?: string | undefined } = {},
  ): Promise<MultiHeadAttention> {
    knownOptions(options, ['prefix', 'device', 'signal', 'onProgress']);
    const { prefix = '', device = 'cpu', ...job } = options;
    const where = named(device);
    const { tensors } = await readSafetensors(path, job);
    const found = allNames.flatMap((name) => {
      const t = tensors.get(prefix + name);
      return t ? [[name, t] as const] : [];
    });
    if (found.length === 0)
      throw new TopknotError('ERR_ARGUMENT', `prefix: '${path}' has no parameters of attention named '${prefix}...'`);
    return new MultiHeadAttention(
      found.map(([name, t]) => [name, moved(t, where)] as const),
      heads,
    );
  }

  /**
   * This layer on another device, with copies of its parameters; itself where it is there already.
   * @param device 'cpu', 'cuda', 'cuda:1', ... or 'auto': see `device()`
   * @throws ERR_DEVICE, ERR_MEMORY, ERR_ARGUMENT
   */
  to(device: string): MultiHeadAttention {
    const where = named(device);
    if (where === this.device) return this;
    const parameters = [...this.parameters].map(([name, t]) => [name, t.to(where)] as const);
    return new MultiHeadAttention(parameters, this.heads);
  }

  /** Writes the parameters to a safetensors file, whole or not at all, for `load` and for PyTorch. */
  async save(path: string, options: JobOptions & { prefix?: string | undefined } = {}): Promise<void> {
    knownOptions(options, ['prefix', 'signal', 'onProgress']);
    const { prefix = '', ...job } = options;
    await writeSafetensors(
      path,
      [...this.parameters].map(([name, t]) => [prefix + name, t] as const),
      job,
    );
  }

  /**
   * out = concat over heads of softmax(q kᵀ / √(E / heads) + bias) v, times `out_proj`, with q, k and v the projections of
   * the inputs. Unlike PyTorch's, a key mask says which keys may be seen; a query that sees none gives `out_proj.bias`.
   *
   * @param query float32 [batch, queries, embedDim]
   * @param key float32 [batch, keys, keyDim]; the query unless given
   * @param value float32 [batch, keys, valueDim]; the key unless given
   * @throws ERR_SHAPE, ERR_DTYPE, ERR_RANGE, ERR_ARGUMENT or ERR_DEVICE at once; reading rejects like that of `attention`
   */
  forward(
    query: Floats,
    key?: Floats,
    value?: Floats,
    options: MultiHeadAttentionOptions = {},
  ): MultiHeadAttentionResult {
    knownOptions(options, optionNames);
    handleOf('query', query);
    for (const [name, input] of Object.entries({ key, value }))
      if (input !== undefined && !(input instanceof Tensor))
        expected(name, 'a Tensor or undefined (options are the fourth argument)', input);
    const inputs = [query, key ?? query, value ?? key ?? query] as const;
    const batch = query.shape[0] ?? 0;
    const lengths = [query.shape[1] ?? 0, inputs[1].shape[1] ?? 0] as const;
    expectFloats('query', query, [batch, lengths[0], this.embedDim], this.device);
    expectFloats('key', inputs[1], [batch, lengths[1], this.keyDim], this.device);
    expectFloats('value', inputs[2], [batch, lengths[1], this.valueDim], this.device);

    const project = (i: 0 | 1 | 2): Projection => {
      const [input, weight, bias] = [inputs[i], this.#weights[i], this.#biases[i]];
      return { input, weight, bias, out: matmul(input, weight, { transposeB: true, bias }) };
    };
    const projections = [project(0), project(1), project(2)] as const;
    // Positions before heads, as the projections leave them: sequences packed one after the other.
    const split = (i: 0 | 1 | 2): Floats =>
      projections[i].out.reshape([batch * lengths[Math.min(i, 1)]!, this.heads, this.embedDim / this.heads]);
    const heads = [split(0), split(1), split(2)] as const;
    const { keyMask } = options;
    if (keyMask instanceof Tensor && keyMask.shape.join() !== `${batch},${lengths[1]}`)
      throw new TopknotError(
        'ERR_SHAPE',
        `keyMask: expected shape [${batch}, ${lengths[1]}] (batch, keys) but received [${keyMask.shape.join(', ')}]`,
      );
    if (options.bias instanceof Tensor && options.bias.shape.slice(2).join() !== lengths.join())
      throw new TopknotError(
        'ERR_SHAPE',
        `bias: expected shape [1 or ${batch}, 1 or ${this.heads}, ${lengths.join(', ')}] but received [${options.bias.shape.join(', ')}]`,
      );
    const given: AttentionOptions = {
      ...options,
      keyMask: keyMask instanceof Tensor ? (keyMask.reshape([batch * lengths[1]]) as typeof keyMask) : keyMask,
      queryOffsets: ends(batch, lengths[0]),
      keyOffsets: ends(batch, lengths[1]),
    };
    const attended = attention(...heads, given);
    const merged = attended.out.reshape([batch, lengths[0], this.embedDim]);
    const out = matmul(merged, this.parameters.get('out_proj.weight')!, this.#outOptions());
    const saved = {
      projections,
      given: [key !== undefined, value !== undefined] as const,
      heads,
      attention: attended,
      options: given,
      merged,
    };
    return { out, saved };
  }

  /**
   * The gradients of a loss with respect to the inputs of `forward` and the parameters.
   * @param outGradient float32, the shape of `out`: the gradient of the loss with respect to it
   * @param result what `forward` of this layer returned
   * @throws ERR_SHAPE, ERR_DTYPE
   */
  backward(outGradient: Floats, result: MultiHeadAttentionResult): MultiHeadAttentionGradients {
    if (!result?.saved) expected('result', 'what forward returned', result);
    const { projections, given, heads, attention: attended, options, merged } = result.saved;
    expectFloats('outGradient', outGradient, result.out.shape, this.device);
    const outWeight = this.parameters.get('out_proj.weight')!;
    const ofOut = matmulBackward(outGradient, merged, outWeight, result.out, this.#outOptions());
    const ofHeads = attentionBackward(ofOut.a.reshape(heads[0].shape), ...heads, attended, options);
    const back = (i: 0 | 1 | 2, gradient: Floats) => {
      const { input, weight, bias, out } = projections[i];
      return matmulBackward(gradient.reshape(out.shape), input, weight, out, { transposeB: true, bias });
    };
    const parts = [back(0, ofHeads.q), back(1, ofHeads.k), back(2, ofHeads.v)] as const;
    const join = (tensors: readonly Floats[]): Floats => new Tensor(native.joinRows(tensors.map((t) => t.handle)));

    const parameters = new Map<string, Floats>();
    if (this.parameters.has('in_proj_weight')) parameters.set('in_proj_weight', join(parts.map((p) => p.b)));
    else for (const [i, name] of separate.entries()) parameters.set(name, parts[i]!.b);
    if (parts[0].bias) parameters.set('in_proj_bias', join(parts.map((p) => p.bias!)));
    parameters.set('out_proj.weight', ofOut.b);
    if (ofOut.bias) parameters.set('out_proj.bias', ofOut.bias);

    const [hasKey, hasValue] = given;
    const ofValue = parts[2].a;
    const ofKey = hasValue ? parts[1].a : add(parts[1].a, ofValue);
    const both = hasKey ? parts[0].a : add(parts[0].a, ofKey);
    return {
      query: both,
      key: hasKey ? ofKey : undefined,
      value: hasValue ? ofValue : undefined,
      bias: ofHeads.bias,
      parameters,
    };
  }

  #outOptions() {
    return { transposeB: true, bias: this.parameters.get('out_proj.bias') };
  }
}

/** Offsets of sequences of one length. */
const ends = (batch: number, length: number): Int32Array =>
  Int32Array.from({ length: batch + 1 }, (_, b) => b * length);

/** Pairs of a name and a tensor, one by one as they are taken. */
function* checkPairs(parameters: Iterable<readonly [string, Tensor]>): Generator<readonly [string, Tensor]> {
  const what = 'a Map or another iterable of [name, Tensor]';
  if (typeof parameters !== 'object' || parameters === null || !(Symbol.iterator in parameters))
    expected('parameters', what, parameters);
  for (const pair of parameters) {
    if (!Array.isArray(pair) || pair.length !== 2) expected('parameters', what, pair);
    if (!(pair[1] instanceof Tensor)) expected(`parameters '${pair[0]}'`, 'a Tensor', pair[1]);
    yield pair;
  }
}

function dividing(heads: number, embedDim: number): number {
  integer('heads', heads, 1);
  if (embedDim % heads !== 0)
    throw new TopknotError(
      'ERR_SHAPE',
      `heads: expected a number that divides ${embedDim} columns but received ${heads}`,
    );
  return heads;
}

/** A tensor from a file or a random start, which nobody else keeps, where it is to be. */
function moved(t: Tensor, device: string): Tensor {
  if (t.device === device) return t;
  using from = t;
  return from.to(device);
}

function expectFloats(name: string, t: Tensor, shape: readonly number[], device: string, as = 'the layer'): void {
  if (!(t instanceof Tensor)) expected(name, 'a Tensor', t);
  if (t.dtype !== 'float32') throw new TopknotError('ERR_DTYPE', `${name}: expected float32 but received ${t.dtype}`);
  if (t.shape.join() !== shape.join())
    throw new TopknotError(
      'ERR_SHAPE',
      `${name}: expected shape [${shape.join(', ')}] but received [${t.shape.join(', ')}]`,
    );
  if (t.device !== device)
    throw new TopknotError(
      'ERR_DEVICE',
      `${name}: expected to be on device '${device}', as ${as} is, but is on '${t.device}'`,
    );
}
