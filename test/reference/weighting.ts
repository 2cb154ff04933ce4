// The formulas of lib/data/weighting.ts, in float64, over plain triplets.
export interface Triplet {
  user: number;
  item: number;
  value: number;
}

const sum = (x: readonly number[]) => x.reduce((a, b) => a + b, 0);

export function weight(
  data: readonly Triplet[],
  scheme: string,
  { alpha = 1, k1 = 1.2, b = 0.75, exponent = 0.4 } = {},
): number[] {
  const users = new Set(data.map((t) => t.user));
  const frequency = (item: number) => data.filter((t) => t.item === item).length;
  const length = (user: number) => sum(data.filter((t) => t.user === user).map((t) => t.value));
  const averageLength = sum([...users].map(length)) / users.size;
  const meanRarity = sum(data.map((t) => frequency(t.item) ** -exponent)) / data.length;
  return data.map(({ user, item, value: v }) => {
    const n = frequency(item);
    switch (scheme) {
      case 'binary':
        return 1;
      case 'log':
        return Math.log(1 + alpha * v);
      case 'tfidf':
        return v * (Math.log((1 + users.size) / (1 + n)) + 1);
      case 'rarity':
        return (v * n ** -exponent) / meanRarity;
      default: {
        if (v === 0) return 0;
        const idf = Math.log(1 + (users.size - n + 0.5) / (n + 0.5));
        return (idf * v * (k1 + 1)) / (v + k1 * (1 - b + (b * length(user)) / averageLength));
      }
    }
  });
}

export function normalize(data: readonly Triplet[], normalization: string): number[] {
  return data.map(({ user, value }) => {
    const own = data.filter((t) => t.user === user).map((t) => t.value);
    if (normalization === 'mean-center') return value - sum(own) / own.length;
    const norm = normalization === 'l1' ? sum(own.map(Math.abs)) : Math.sqrt(sum(own.map((v) => v * v)));
    return norm === 0 ? 0 : value / norm;
  });
}
