// What searchSync costs beyond its kernel: over one vector of four numbers the kernel has nothing to do, so all of the
// time is overhead. The peer is the same call of the addon without the TypeScript around it.
import { FlatIndex, tensor } from '../../dist/index.js';
import { native } from '../../dist/native.js';
import { gaussians } from '../data/random.mjs';
import { checkIds } from '../lib/check-topk.mjs';

export const name = 'search-sync';

export const sizes = [false, true].flatMap((quick) => [
  { label: '1x4 k=1', n: 1, d: 4, k: 1, quick },
  { label: '1000x64 k=10', n: 1000, d: 64, k: 10, quick },
]);

export async function setup({ n, d, k }) {
  const items = gaussians(n * d, 1);
  const index = await FlatIndex.from(
    Array.from({ length: n }, (_, i) => i),
    items,
  );
  return { items, index, query: gaussians(d, 2), options: { k } };
}

export const run = ({ index, query, options }) => index.searchSync(query, options);

export function verify(state, size) {
  const { ids, scores } = run(state);
  checkIds({ items: state.items, queries: state.query, q: 1, ...size }, Int32Array.from(ids), scores);
}

export function peers({ items, query }, { n, d, k }) {
  const matrix = tensor(items, { shape: [n, d] });
  const call = () => native.searchSync(query, undefined, matrix.handle, undefined, k, 'innerProduct', {});
  return [{ name: 'addon call alone', run: call, close: () => matrix.dispose() }];
}
