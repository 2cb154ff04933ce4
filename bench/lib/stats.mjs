/** The value below which a share `q` of the samples lies (nearest rank). */
export function quantile(samples, q) {
  if (samples.length === 0) return null;
  const sorted = Float64Array.from(samples).sort();
  return sorted[Math.max(0, Math.ceil(q * sorted.length) - 1)];
}

export const median = (samples) => quantile(samples, 0.5);

/** Rounded to four significant digits: what a timing is worth. */
export const rounded = (x) => (x === null || !Number.isFinite(x) ? null : Number(x.toPrecision(4)));
