// Other ways to find exact inner-product top-k from Node. Each opener takes { items, n, d, threads } and gives
// { version, limit, search(queries, count, k) }, where search returns the ids of all queries, row-major, or a promise
// of them, and limit(size) tells whether a size is small enough to be worth waiting for.
import { find } from './find.mjs';
import { topkModel } from './onnx-model.mjs';

/** Scores of a whole batch are held at once by those that multiply first: keep them under 2 GB. */
const batchFits = ({ q, n }) => q * n <= 5e8;

async function onnxruntime({ items, n, d, threads }) {
  const { module: ort, version } = find('onnxruntime-node');
  const session = await ort.InferenceSession.create(topkModel(), {
    intraOpNumThreads: threads,
    executionProviders: ['cpu'],
  });
  const transposed = new Float32Array(items.length);
  for (let i = 0; i < n; ++i) for (let j = 0; j < d; ++j) transposed[j * n + i] = items[i * d + j];
  const columns = new ort.Tensor('float32', transposed, [d, n]);
  const search = async (queries, count, k) => {
    const kTensor = new ort.Tensor('int64', BigInt64Array.of(BigInt(k)), [1]);
    const out = await session.run({
      queries: new ort.Tensor('float32', queries, [count, d]),
      items: columns,
      k: kTensor,
    });
    return out.ids.data;
  };
  return { version, limit: batchFits, search, close: () => session.release() };
}

function usearch({ items, d, threads }) {
  const { module, version } = find('usearch');
  const search = (queries, count, k) => {
    const found = module.exactSearch(items, queries, d, k, module.MetricKind.IP, threads);
    if (count === 1) return found.keys;
    return Array.from({ length: count }, (_, q) => [...found.get(q).keys]).flat();
  };
  return { version, limit: ({ q, n, d: width }) => q * n * width <= 4e9, search };
}

async function tfjsWasm({ items, n, d }) {
  const { module: tf, version } = find('@tensorflow/tfjs');
  find('@tensorflow/tfjs-backend-wasm');
  await tf.setBackend('wasm');
  const matrix = tf.tensor2d(items, [n, d]);
  const search = async (queries, count, k) => {
    const ids = tf.tidy(() => tf.topk(tf.matMul(tf.tensor2d(queries, [count, d]), matrix, false, true), k).indices);
    const data = await ids.data();
    ids.dispose();
    return data;
  };
  return {
    version,
    limit: ({ q, n: rows, d: width }) => q * rows * width <= 1.1e9,
    search,
    close: () => matrix.dispose(),
  };
}

function hnswlibBruteForce({ items, n, d }) {
  const { module, version } = find('hnswlib-node');
  const index = new module.BruteforceSearch('ip', d);
  index.initIndex(n);
  for (let i = 0; i < n; ++i) index.addPoint(Array.from(items.subarray(i * d, (i + 1) * d)), i);
  const search = (queries, count, k) =>
    Array.from({ length: count }, (_, q) => {
      const { neighbors, distances } = index.searchKnn(Array.from(queries.subarray(q * d, (q + 1) * d)), k);
      return neighbors
        .map((id, j) => [distances[j], id])
        .sort((x, y) => x[0] - y[0])
        .map(([, id]) => id);
    }).flat();
  return { version, limit: ({ q, n: rows, d: width }) => rows <= 2e5 && q * rows * width <= 1e9, search };
}

/** What a service would write without a library: one pass, a sorted array of the best k. */
function javascript({ items, n, d }) {
  const one = (query, k, ids) => {
    const best = new Float32Array(k).fill(Number.NEGATIVE_INFINITY);
    for (let i = 0, at = 0; i < n; ++i, at += d) {
      let even = 0,
        odd = 0;
      for (let j = 0; j < d; j += 2) {
        even += items[at + j] * query[j];
        odd += items[at + j + 1] * query[j + 1];
      }
      const score = even + odd;
      if (!(score > best[k - 1])) continue;
      let place = k - 1;
      for (; place > 0 && best[place - 1] < score; --place) {
        best[place] = best[place - 1];
        ids[place] = ids[place - 1];
      }
      best[place] = score;
      ids[place] = i;
    }
  };
  const search = (queries, count, k) => {
    const ids = new Int32Array(count * k);
    for (let q = 0; q < count; ++q) one(queries.subarray(q * d, (q + 1) * d), k, ids.subarray(q * k, (q + 1) * k));
    return ids;
  };
  return { version: process.version, limit: ({ q, n: rows, d: width }) => q * rows * width <= 1.1e9, search };
}

export const topkPeers = {
  'onnxruntime-node': onnxruntime,
  'usearch exact': usearch,
  'hnswlib-node brute force': hnswlibBruteForce,
  'tfjs wasm': tfjsWasm,
  'plain JS': javascript,
};
