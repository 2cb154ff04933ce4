// Other graph indexes for Node. Each opener takes { items, n, d, threads, connectivity, expansionAdd }, builds its index and
// gives { version, buildSeconds, at(expansion) }; at() makes { search(queries, count, k), close? }, where search returns the
// ids of all queries, row-major.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { find } from './find.mjs';

const since = (start) => (performance.now() - start) / 1000;

/** All threads; on the JavaScript thread. */
function usearch({ items, n, d, threads, connectivity, expansionAdd }) {
  const { module, version } = find('usearch');
  const make = (expansion) =>
    new module.Index({
      metric: module.MetricKind.IP,
      quantization: module.ScalarKind.F32,
      dimensions: d,
      connectivity,
      expansion_add: expansionAdd,
      expansion_search: expansion,
      multi: false,
    });
  const start = performance.now();
  const index = make(expansionAdd);
  const step = 10_000;
  for (let i = 0; i < n; i += step) {
    const count = Math.min(step, n - i);
    const keys = BigUint64Array.from({ length: count }, (_, j) => BigInt(i + j));
    index.add(keys, items.subarray(i * d, (i + count) * d), threads);
  }
  const buildSeconds = since(start);
  // An index searches with the expansion it was made with: one is loaded for each.
  const folder = mkdtempSync(join(tmpdir(), 'topknot-bench-'));
  const file = join(folder, 'usearch');
  index.save(file);
  const at = (expansion) => {
    const loaded = make(expansion);
    loaded.load(file);
    const search = (queries, count, k) => {
      const found = loaded.search(queries, k, threads);
      return Array.from({ length: count }, (_, q) => Array.from(found.get(q).keys, Number)).flat();
    };
    return { search, time: (queries, k) => loaded.search(queries, k, threads) };
  };
  return { version, buildSeconds, at, close: () => rmSync(folder, { recursive: true }) };
}

/** One thread; on the JavaScript thread; plain arrays only. */
function hnswlib({ items, n, d, connectivity, expansionAdd }) {
  const { module, version } = find('hnswlib-node');
  const index = new module.HierarchicalNSW('ip', d);
  index.initIndex({ maxElements: n, m: connectivity, efConstruction: expansionAdd, randomSeed: 100 });
  const start = performance.now();
  for (let i = 0; i < n; ++i) index.addPoint(Array.from(items.subarray(i * d, (i + 1) * d)), i);
  const buildSeconds = since(start);
  const at = (expansion) => {
    const search = (queries, count, k) => {
      index.setEf(expansion);
      return Array.from({ length: count }, (_, q) =>
        byDistance(index.searchKnn(Array.from(queries.subarray(q * d, (q + 1) * d)), k)),
      ).flat();
    };
    return { search, time: (queries, k) => search(queries, queries.length / d, k) };
  };
  return { version, buildSeconds, at };
}

function byDistance({ neighbors, distances }) {
  return neighbors
    .map((id, i) => [distances[i], id])
    .sort((a, b) => a[0] - b[0])
    .map(([, id]) => id);
}

export const annPeers = { usearch, 'hnswlib-node (1 thread)': hnswlib };
