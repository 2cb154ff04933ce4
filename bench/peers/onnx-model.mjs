// The smallest ONNX models of what the peers run, in protobuf wire format (onnx/onnx.proto3).

function varint(n) {
  const out = [];
  for (let rest = BigInt(n); ; rest >>= 7n) {
    if (rest < 128n) return Buffer.from([...out, Number(rest)]);
    out.push(Number(rest & 127n) | 128);
  }
}
const number = (field, n) => Buffer.concat([varint(field << 3), varint(n)]);
function bytes(field, ...parts) {
  const body = Buffer.concat(parts.map((p) => Buffer.from(p)));
  return Buffer.concat([varint((field << 3) | 2), varint(body.length), body]);
}

const float32 = 1,
  int64 = 7;
/** ValueInfoProto; a dimension is a number or the name of an unknown one. */
function value(name, type, dims) {
  const shape = dims.map((d) => bytes(1, typeof d === 'number' ? number(1, d) : bytes(2, d)));
  return Buffer.concat([bytes(1, name), bytes(2, bytes(1, number(1, type), bytes(2, ...shape)))]);
}
/** NodeProto without attributes. */
const node = (op, inputs, outputs) =>
  Buffer.concat([...inputs.map((x) => bytes(1, x)), ...outputs.map((x) => bytes(2, x)), bytes(4, op)]);

/** Inputs queries [q, d], items [d, n], k [1]; outputs scores and ids [q, k]. */
export function topkModel() {
  const graph = bytes(
    7,
    bytes(1, node('MatMul', ['queries', 'items'], ['all'])),
    bytes(1, node('TopK', ['all', 'k'], ['scores', 'ids'])),
    bytes(2, 'topk'),
    bytes(11, value('queries', float32, ['q', 'd'])),
    bytes(11, value('items', float32, ['d', 'n'])),
    bytes(11, value('k', int64, [1])),
    bytes(12, value('scores', float32, ['q', 'kept'])),
    bytes(12, value('ids', int64, ['q', 'kept'])),
  );
  const irVersion = 9,
    opset = 18;
  return Buffer.concat([number(1, irVersion), graph, bytes(8, number(2, opset))]);
}

/** ONNX Runtime's own operator. Inputs q, k, v and output out: [batch, length, heads x dims]. */
export function attentionModel(heads, causal) {
  const shape = ['batch', 'length', 'width'];
  const contrib = 'com.microsoft';
  const integer = (name, value) => bytes(5, bytes(1, name), number(3, value), number(20, 2)); // 2: an integer
  const attributes = [integer('num_heads', heads), integer('unidirectional', causal ? 1 : 0)];
  const names = ['q', 'k', 'v'];
  const graph = bytes(
    7,
    bytes(1, node('MultiHeadAttention', names, ['out']), ...attributes, bytes(7, contrib)),
    bytes(2, 'attention'),
    ...names.map((name) => bytes(11, value(name, float32, shape))),
    bytes(12, value('out', float32, shape)),
  );
  return Buffer.concat([number(1, 9), graph, bytes(8, number(2, 18)), bytes(8, bytes(1, contrib), number(2, 1))]);
}
