// Philox4x32-10 (Salmon et al., SC 2011) and what the engine draws from it; see native/core/random.h.

const mask = 0xffffffffn;

function philox(seed: bigint, row: bigint, step: bigint): bigint[] {
  let c = [step & mask, step >> 32n, row & mask, row >> 32n];
  let [k0, k1] = [seed & mask, seed >> 32n];
  for (let round = 0; round < 10; round++) {
    const a = 0xd2511f53n * c[0]!;
    const b = 0xcd9e8d57n * c[2]!;
    c = [(b >> 32n) ^ c[1]! ^ k0, b & mask, (a >> 32n) ^ c[3]! ^ k1, a & mask];
    k0 = (k0 + 0x9e3779b9n) & mask;
    k1 = (k1 + 0xbb67ae85n) & mask;
  }
  return c;
}

/** Draws of integers in [0, n): multiply 64 random bits by n, keep the high half (Lemire 2019). */
export function below(seed: bigint, row: bigint): (n: number) => number {
  const words: bigint[] = [];
  let step = 0n;
  const bits64 = () => {
    if (words.length === 0) words.push(...philox(seed, row, step++));
    return (words.shift()! << 32n) | words.shift()!;
  };
  return (n) => {
    for (;;) {
      const product = bits64() * BigInt(n);
      const floor = (1n << 64n) % BigInt(n);
      if ((product & 0xffffffffffffffffn) >= floor) return Number(product >> 64n);
    }
  };
}

/** The values in the order of Fisher and Yates. */
export function shuffled<T>(values: readonly T[], draw: (n: number) => number): T[] {
  const out = [...values];
  for (let i = out.length - 1; i > 0; i--) {
    const j = draw(i + 1);
    [out[i], out[j]] = [out[j]!, out[i]!];
  }
  return out;
}
