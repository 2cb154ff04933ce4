// Seeded numbers for benchmark data: the same seed gives the same data on every machine.

/** sfc32 (Chris Doty-Humphrey): passes PractRand, and 32-bit steps suit JavaScript. */
export function random(seed) {
  let a = seed | 0,
    b = 0x9e3779b9 | 0,
    c = 0x243f6a88 | 0,
    counter = 1;
  const bits = () => {
    const t = (((a + b) | 0) + counter) | 0;
    counter = (counter + 1) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = (c << 21) | (c >>> 11);
    c = (c + t) | 0;
    return t >>> 0;
  };
  for (let i = 0; i < 12; ++i) bits();
  const uniform = () => ((bits() >>> 5) * 67108864 + (bits() >>> 6)) / 9007199254740992;
  return { bits, uniform };
}

/** `count` numbers from the standard normal distribution, by Box and Muller. */
export function gaussians(count, seed) {
  const out = new Float32Array(count);
  const { bits } = random(seed);
  for (let i = 0; i < count; i += 2) {
    const radius = Math.sqrt(-2 * Math.log((bits() + 1) / 4294967297));
    const angle = (2 * Math.PI * bits()) / 4294967296;
    out[i] = radius * Math.cos(angle);
    if (i + 1 < count) out[i + 1] = radius * Math.sin(angle);
  }
  return out;
}

/** 0 to n - 1 in random order. */
export function permutation(n, seed) {
  const out = Int32Array.from({ length: n }, (_, i) => i);
  const { uniform } = random(seed);
  for (let i = n - 1; i > 0; --i) {
    const j = Math.floor(uniform() * (i + 1));
    [out[i], out[j]] = [out[j], out[i]];
  }
  return out;
}

/**
 * Vectors somewhat like learned item factors: 1000 clusters, coordinates that matter less and less, lengths that vary
 * (log-normal, sigma .15). The clusters are the same for every seed, so that queries of another seed lie among the items.
 */
export function clustered(n, d, seed) {
  const clusters = 1000;
  const centres = gaussians(clusters * d, 99);
  const noise = gaussians(n * d, seed);
  const lengths = gaussians(n, seed + 1000);
  const { uniform } = random(seed + 2000);
  for (let i = 0; i < n; ++i) {
    const centre = Math.floor(uniform() * clusters) * d;
    const length = Math.exp(0.15 * lengths[i]);
    for (let j = 0; j < d; ++j)
      noise[i * d + j] = ((centres[centre + j] + 0.7 * noise[i * d + j]) * length) / Math.sqrt(1 + j);
  }
  return noise;
}
