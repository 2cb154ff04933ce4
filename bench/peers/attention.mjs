// ONNX Runtime's MultiHeadAttention on the same numbers, in the layout that it takes: [batch, length, heads x dims].
import { find } from './find.mjs';
import { attentionModel } from './onnx-model.mjs';

function headsInside(x, [batch, heads, n, d]) {
  const out = new Float32Array(x.length);
  for (let b = 0; b < batch; ++b)
    for (let h = 0; h < heads; ++h)
      for (let i = 0; i < n; ++i) {
        const from = ((b * heads + h) * n + i) * d;
        out.set(x.subarray(from, from + d), ((b * n + i) * heads + h) * d);
      }
  return out;
}

/** `{ version, run, close }`; run() gives the output, position by position, heads inside. */
export async function onnxAttention([q, k, v], shape, causal, threads) {
  const { module: ort, version } = find('onnxruntime-node');
  const [batch, heads, n, d] = shape;
  const session = await ort.InferenceSession.create(attentionModel(heads, causal), {
    intraOpNumThreads: threads,
    executionProviders: ['cpu'],
  });
  const input = (x) => new ort.Tensor('float32', headsInside(x, shape), [batch, n, heads * d]);
  const feeds = { q: input(q), k: input(k), v: input(v) };
  const run = async () => (await session.run(feeds)).out.data;
  return { version, run, close: () => session.release() };
}
