// One line for each row on a logarithmic axis of milliseconds: the floor that the measured limits allow, topknot, peers.

const width = 1100,
  rowHeight = 24,
  left = 330,
  right = 200,
  top = 104;
export const ink = '#1b1f24',
  quiet = '#6b7280',
  grid = '#e5e7eb',
  ours = '#0f62fe';
export const peerColours = [
  '#d9480f',
  '#2b8a3e',
  '#862e9c',
  '#b08800',
  '#0b7285',
  '#c2255c',
  '#5c5f66',
  '#7c4a03',
  '#6741d9',
  '#66a80f',
];

const escaped = (text) => String(text).replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');

export function text(x, y, content, { anchor = 'start', size = 12, colour = ink, weight = 400 } = {}) {
  return `<text x="${x.toFixed(1)}" y="${y.toFixed(1)}" font-size="${size}" fill="${colour}" font-weight="${weight}" text-anchor="${anchor}">${escaped(content)}</text>`;
}

export const dot = (x, y, colour, radius = 5) =>
  `<circle cx="${x.toFixed(1)}" cy="${y}" r="${radius}" fill="${colour}" stroke="#fff" stroke-width="1"/>`;

function floorMark(x, y) {
  return `<line x1="${x.toFixed(1)}" y1="${y - 7}" x2="${x.toFixed(1)}" y2="${y + 7}" stroke="${ink}" stroke-width="2"/>`;
}

/** @param about what machine() gave, for the caption. */
export function chart(rows, about) {
  if (rows.length === 0) return '<svg xmlns="http://www.w3.org/2000/svg" width="10" height="10"/>\n';
  const names = [...new Set(rows.flatMap((r) => Object.keys(r.peers)))];
  const colourOf = new Map(names.map((name, i) => [name, peerColours[i % peerColours.length]]));
  const times = rows.flatMap((r) => [r.median_ms, floorOf(r), ...Object.values(r.peers)]).filter((ms) => ms > 0);
  const low = Math.floor(Math.log10(Math.min(...times))),
    high = Math.ceil(Math.log10(Math.max(...times)) + 1e-9);
  const scale = (ms) => left + ((Math.log10(ms) - low) / Math.max(1, high - low)) * (width - left - right);
  const lines = layout(rows);
  const bottom = top + lines.length * rowHeight;
  const decades = Array.from({ length: high - low + 1 }, (_, i) => 10 ** (low + i));
  const body = [
    text(20, 28, 'topknot: median time of one call', { size: 17, weight: 600 }),
    text(20, 47, caption(about), { colour: quiet }),
    legend(colourOf),
    ...decades.flatMap((ms) => [
      `<line x1="${scale(ms).toFixed(1)}" y1="${top}" x2="${scale(ms).toFixed(1)}" y2="${bottom}" stroke="${grid}"/>`,
      text(scale(ms), bottom + 16, duration(ms), { anchor: 'middle', colour: quiet }),
    ]),
    ...lines.flatMap((line, i) => drawLine(line, top + (i + 0.5) * rowHeight, scale, colourOf)),
  ];
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${bottom + 30}" font-family="system-ui, 'DejaVu Sans', sans-serif">
<rect width="100%" height="100%" fill="#fff"/>
${body.join('\n')}
</svg>
`;
}

/** Milliseconds in the unit that suits them. */
function duration(ms) {
  const [value, unit] = ms >= 1000 ? [ms / 1000, 's'] : ms >= 1 ? [ms, 'ms'] : [ms * 1000, 'µs'];
  return `${Number(value.toPrecision(3))} ${unit}`;
}

/** A title line where a case begins, then its rows. */
function layout(rows) {
  return rows.flatMap((row, i) => (row.case === rows[i - 1]?.case ? [{ row }] : [{ title: row.case }, { row }]));
}

function drawLine({ title, row }, y, scale, colourOf) {
  if (title) return [text(20, y + 5, title, { size: 13, weight: 600 })];
  const floor = floorOf(row);
  const points = [row.median_ms, ...Object.values(row.peers), ...(floor ? [floor] : [])].map(scale);
  const share = row.limit_share === null ? '' : `, ${Math.round(100 * row.limit_share)}% of limit`;
  return [
    text(36, y + 4, row.size),
    `<line x1="${Math.min(...points).toFixed(1)}" y1="${y}" x2="${Math.max(...points).toFixed(1)}" y2="${y}" stroke="#c9ced6"/>`,
    ...(floor ? [floorMark(scale(floor), y)] : []),
    ...Object.entries(row.peers).map(([name, ms]) => dot(scale(ms), y, colourOf.get(name))),
    dot(scale(row.median_ms), y, ours, 6),
    text(width - 20, y + 4, `${duration(row.median_ms)}${share}`, { anchor: 'end', colour: quiet }),
  ];
}

const floorOf = (row) => (row.limit_share ? row.limit_share * row.median_ms : null);

export function caption({ cpu, threads, isa, node, commit, date }) {
  return [cpu, `${threads} threads`, isa, `Node ${node}`, commit?.slice(0, 8), date.slice(0, 10)]
    .filter(Boolean)
    .join(' · ');
}

function legend(colourOf) {
  let [x, y] = [24, 66];
  const out = [];
  const add = (mark, label) => {
    const wide = 30 + label.length * 6.9;
    if (x + wide > width) [x, y] = [24, y + 20];
    out.push(mark(x, y), text(x + 10, y + 4, label));
    x += wide;
  };
  add((atX, atY) => dot(atX, atY, ours, 6), 'topknot');
  add(floorMark, 'measured limit');
  for (const [name, colour] of colourOf) add((atX, atY) => dot(atX, atY, colour), name);
  return out.join('\n');
}
