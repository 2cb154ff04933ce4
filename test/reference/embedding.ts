/** Embedding lookups and their gradients by definition, in float64. */
export interface Bags {
  ids: readonly number[];
  offsets: readonly number[];
  mode: 'sum' | 'mean' | 'max';
  weights?: readonly number[] | undefined;
  paddingIndex?: number | undefined;
}

/** The entries of bag b that count. */
export const entriesOf = ({ ids, offsets, paddingIndex }: Bags, b: number): number[] =>
  [...ids.keys()].slice(offsets[b], offsets[b + 1]).filter((i) => ids[i] !== paddingIndex);

export function bagsOf(table: readonly (readonly number[])[], bags: Bags): number[][] {
  const cols = table[0]!.length;
  return bags.offsets.slice(1).map((_, b) => {
    const entries = entriesOf(bags, b);
    return Array.from({ length: cols }, (_, c) => {
      if (entries.length === 0) return 0;
      const column = entries.map((i) => (bags.weights?.[i] ?? 1) * table[bags.ids[i]!]![c]!);
      if (bags.mode === 'max') return Math.max(...column);
      const sum = column.reduce((a, x) => a + x, 0);
      return bags.mode === 'mean' ? sum / entries.length : sum;
    });
  });
}

/** The dense gradient of the table, for the derivative `out` of the loss by each bag. */
export function denseGradient(
  table: readonly (readonly number[])[],
  bags: Bags,
  out: readonly (readonly number[])[],
): number[][] {
  const gradient = table.map((row) => row.map(() => 0));
  for (const [b, dOut] of out.entries()) {
    const entries = entriesOf(bags, b);
    for (const [c, g] of dOut.entries()) {
      if (bags.mode === 'max') {
        let best: number | undefined;
        for (const i of entries)
          if (best === undefined || table[bags.ids[i]!]![c]! > table[bags.ids[best]!]![c]!) best = i;
        if (best !== undefined) gradient[bags.ids[best]!]![c]! += g;
        continue;
      }
      for (const i of entries)
        gradient[bags.ids[i]!]![c]! += (bags.mode === 'mean' ? 1 / entries.length : (bags.weights?.[i] ?? 1)) * g;
    }
  }
  return gradient;
}
