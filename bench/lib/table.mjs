// The table on the terminal.
const columns = [
  ['case', (r) => r.case, 'left'],
  ['size', (r) => r.size, 'left'],
  ['median ms', (r) => milliseconds(r.median_ms)],
  ['p99 ms', (r) => milliseconds(r.p99_ms)],
  ['GFLOP/s', (r) => fixed(r.gflops, 1)],
  ['GB/s', (r) => fixed(r.gbps, 1)],
  ['of limit', (r) => (r.limit_share === null ? '' : `${Math.round(100 * r.limit_share)}%`)],
  ['loop p99', (r) => milliseconds(r.loop_delay_p99_ms)],
  [
    'peers (ms, times ours)',
    (r) =>
      Object.entries(r.peers)
        .map(([name, ms]) => versus(name, ms, r.median_ms))
        .join(', '),
    'left',
  ],
];

const fixed = (x, digits) => (x === null ? '' : x.toFixed(digits));

export function milliseconds(ms) {
  if (ms === null) return '';
  return ms < 0.1 ? ms.toFixed(5) : ms < 10 ? ms.toFixed(3) : ms < 1000 ? ms.toFixed(1) : ms.toFixed(0);
}

const versus = (name, ms, ours) => `${name} ${milliseconds(ms)} (${(ms / ours).toFixed(2)}x)`;

export function table(rows) {
  const cells = [columns.map(([title]) => title), ...rows.map((r) => columns.map(([, cell]) => cell(r)))];
  const widths = columns.map((_, i) => Math.max(...cells.map((line) => line[i].length)));
  const text = (line) =>
    line
      .map((cell, i) => (columns[i][2] === 'left' ? cell.padEnd(widths[i]) : cell.padStart(widths[i])))
      .join('  ')
      .trimEnd();
  return cells.map(text).join('\n');
}
