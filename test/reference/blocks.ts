// The building blocks of networks by their definitions, in float64, on flat arrays with a shape.

export interface Grid {
  shape: readonly number[];
  data: number[];
}

export const sizeOf = (shape: readonly number[]): number => shape.reduce((n, d) => n * d, 1);

/** Element `index` of a grid that is repeated wherever it has 1, or no dimension. */
export function at({ shape, data }: Grid, index: readonly number[]): number {
  let place = 0;
  shape.forEach((d, i) => {
    place = place * d + (d === 1 ? 0 : index[index.length - shape.length + i]!);
  });
  return data[place]!;
}

/** A grid made from a function of its index. */
export function gridOf(shape: readonly number[], f: (index: number[]) => number): Grid {
  const data = Array.from({ length: sizeOf(shape) }, (_, place) => {
    const index: number[] = [];
    for (let i = shape.length - 1, rest = place; i >= 0; rest = Math.floor(rest / shape[i--]!))
      index.unshift(rest % shape[i]!);
    return f(index);
  });
  return { shape, data };
}

export function broadcastShape(a: readonly number[], b: readonly number[]): number[] {
  const rank = Math.max(a.length, b.length);
  const padded = (s: readonly number[]) => [...Array(rank - s.length).fill(1), ...s] as number[];
  const [x, y] = [padded(a), padded(b)];
  return x.map((d, i) => (d === 1 ? y[i]! : d));
}

export const combine = (a: Grid, b: Grid, f: (x: number, y: number) => number): Grid =>
  gridOf(broadcastShape(a.shape, b.shape), (index) => f(at(a, index), at(b, index)));

/** The distribution function of the standard normal distribution, by Simpson's rule over its tail. */
export function normalBelow(x: number): number {
  if (x > 0) return 1 - normalBelow(-x);
  const steps = 2000;
  const h = 12 / steps;
  let sum = 0;
  for (let i = 0; i <= steps; ++i) {
    const t = x - i * h;
    sum += Math.exp((-t * t) / 2) * (i === 0 || i === steps ? 1 : i % 2 ? 4 : 2);
  }
  return (sum * h) / 3 / Math.sqrt(2 * Math.PI);
}

const sigmoid = (x: number) => 1 / (1 + Math.exp(-x));

export const functions = {
  none: (x: number) => x,
  relu: (x: number) => Math.max(x, 0),
  gelu: (x: number) => x * normalBelow(x),
  /** x / 2 (1 + tanh u) = x σ(2 u), which keeps its digits where tanh u is nearly -1. */
  geluTanh: (x: number) => x * sigmoid(2 * Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3)),
  sigmoid,
  tanh: Math.tanh,
  silu: (x: number) => x * sigmoid(x),
  exp: Math.exp,
  log: Math.log,
  sqrt: Math.sqrt,
};

export interface MatmulOptions {
  transposeA?: boolean;
  transposeB?: boolean;
  bias?: Grid;
  activation?: keyof typeof functions;
}

export function matmul(a: Grid, b: Grid, { transposeA, transposeB, bias, activation = 'none' }: MatmulOptions): Grid {
  const [ar, ac] = a.shape.slice(-2) as [number, number];
  const [br, bc] = b.shape.slice(-2) as [number, number];
  const [m, k] = transposeA ? [ac, ar] : [ar, ac];
  const n = transposeB ? br : bc;
  const batch = broadcastShape(a.shape.slice(0, -2), b.shape.slice(0, -2));
  return gridOf([...batch, m, n], (index) => {
    const of = index.slice(0, -2);
    const [i, j] = index.slice(-2) as [number, number];
    let sum = bias ? bias.data[j]! : 0;
    for (let p = 0; p < k; ++p)
      sum += at(a, [...of, ...(transposeA ? [p, i] : [i, p])]) * at(b, [...of, ...(transposeB ? [j, p] : [p, j])]);
    return functions[activation](sum);
  });
}

/** The elements along `axis`, or all of them, for each element of the result. */
export function reduce(x: Grid, axis: number | undefined, f: (values: number[]) => number, keepDims = false): Grid {
  const place = axis === undefined ? undefined : (axis + x.shape.length) % x.shape.length;
  const reduced = (i: number) => place === undefined || i === place;
  const kept = x.shape.map((d, i) => (reduced(i) ? 1 : d));
  const groups = gridOf(kept, () => 0).data.map((): number[] => []);
  gridOf(x.shape, (index) => {
    const group = index.reduce((sum, j, i) => sum * kept[i]! + (reduced(i) ? 0 : j), 0);
    groups[group]!.push(at(x, index));
    return 0;
  });
  return { shape: keepDims ? kept : x.shape.filter((_, i) => !reduced(i)), data: groups.map(f) };
}

/** Of the rows along the last dimension. */
export function rows(x: Grid, f: (row: number[]) => number[]): Grid {
  const cols = x.shape.at(-1)!;
  const count = x.data.length / cols;
  return {
    shape: x.shape,
    data: Array.from({ length: count }, (_, r) => f(x.data.slice(r * cols, (r + 1) * cols))).flat(),
  };
}

export const softmaxRow = (row: number[], log: boolean): number[] => {
  const most = Math.max(...row);
  const total = row.reduce((sum, v) => sum + Math.exp(v - most), 0);
  return row.map((v) => (log ? v - most - Math.log(total) : Math.exp(v - most) / total));
};

export const layerNormRow = (row: number[], eps: number, weight?: number[], bias?: number[]): number[] => {
  const mean = row.reduce((sum, v) => sum + v, 0) / row.length;
  const variance = row.reduce((sum, v) => sum + (v - mean) ** 2, 0) / row.length;
  return row.map((v, i) => ((v - mean) / Math.sqrt(variance + eps)) * (weight?.[i] ?? 1) + (bias?.[i] ?? 0));
};

/** ∂ Σ weights f(x) / ∂x by central differences. */
export function centralDifferences(x: Grid, weights: readonly number[], f: (x: Grid) => Grid, h = 1e-5): number[] {
  return x.data.map((value, i) => {
    const loss = (v: number) => {
      const data = [...x.data];
      data[i] = v;
      return f({ shape: x.shape, data }).data.reduce((sum, out, o) => sum + out * weights[o]!, 0);
    };
    return (loss(value + h) - loss(value - h)) / (2 * h);
  });
}
