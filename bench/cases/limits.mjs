// The machine itself: what the shares of the other rows are shares of. Their limits are measured again beside each of
// them; these rows show what they were about.
import { native } from '../../dist/native.js';

export const name = 'limits';

export const sizes = [
  { label: 'read 256 MB', bytes: 2 ** 28 },
  { label: '1e9 multiply-adds', flops: 2e9 },
  { label: 'read 64 MB', bytes: 2 ** 26, quick: true },
  { label: '1e8 multiply-adds', flops: 2e8, quick: true },
];

export const bytes = (size) => size.bytes ?? null;
export const flops = (size) => size.flops ?? null;

export const setup = (size) => ({ data: size.bytes ? native.tensorFull('float32', [size.bytes / 4], 1) : null });

export async function run({ data }, size) {
  const [gigaPerSecond] = data ? await native.measureRead(undefined, data, 1) : await native.measureFma(undefined, 1);
  return { ms: [(size.bytes ?? size.flops) / gigaPerSecond / 1e6] };
}
