// Philox4x32-10 (Salmon et al., SC 2011) and what native/core/random.h makes of it, in plain integers.

const low = (x: bigint): bigint => x & 0xffffffffn;

export function philox(seed: bigint, row: bigint, step: bigint): bigint[] {
  let c = [low(step), low(step >> 32n), low(row), low(row >> 32n)];
  let [k0, k1] = [low(seed), low(seed >> 32n)];
  for (let round = 0; round < 10; round++) {
    const [a, b] = [0xd2511f53n * c[0]!, 0xcd9e8d57n * c[2]!];
    c = [(b >> 32n) ^ c[1]! ^ k0, low(b), (a >> 32n) ^ c[3]! ^ k1, low(a)];
    k0 = low(k0 + 0x9e3779b9n);
    k1 = low(k1 + 0xbb67ae85n);
  }
  return c;
}

/** The numbers of one (seed, row), drawn in order. */
export class RandomStream {
  #step = 0n;
  #left: bigint[] = [];

  constructor(
    readonly seed: number,
    readonly row: bigint,
  ) {}

  bits(): bigint {
    if (this.#left.length === 0) this.#left = philox(BigInt(this.seed), this.row, this.#step++);
    return this.#left.shift()!;
  }

  /** Uniform in [0, n) from 32 bits, by Lemire's multiplication; what would make it uneven is drawn again. */
  below(n: number): number {
    const floor = 2n ** 32n % BigInt(n);
    for (;;) {
      const m = this.bits() * BigInt(n);
      if (low(m) >= floor) return Number(m >> 32n);
    }
  }

  uniform(): number {
    const high = this.bits();
    return Number(((high << 32n) | this.bits()) >> 11n) * 2 ** -53;
  }

  normal(): number {
    const u = 1 - this.uniform();
    return Math.sqrt(-2 * Math.log(u)) * Math.cos(2 * Math.PI * this.uniform());
  }
}

/** Fisher and Yates's shuffle, from the last place down. */
export function shuffle(array: unknown[], random: RandomStream): void {
  for (let i = array.length - 1; i > 0; i--) {
    const j = random.below(i + 1);
    [array[i], array[j]] = [array[j], array[i]];
  }
}
