// Recall against queries per second, a line for each contestant over its expansions: up and to the right is better.
import { caption, dot, grid, ink, ours, peerColours, quiet, text } from './chart.mjs';

const width = 900,
  height = 460,
  left = 70,
  right = 190,
  top = 70,
  gap = 60;

/** @param rows those with `recall`; one panel for each data set (the first word of the size). */
export function recallChart(rows, about) {
  const shown = rows.filter((row) => row.recall);
  const sets = [...new Set(shown.map(dataSet))];
  const names = [...new Set(shown.flatMap((row) => Object.keys(row.recall)))].sort((a, b) => order(a) - order(b));
  const colourOf = new Map(names.map((name, i) => [name, name === 'topknot' ? ours : peerColours[i - 1]]));
  const rowsOf = (set) => shown.filter((row) => dataSet(row) === set);
  const panels = sets.map((set, i) => panel(set, rowsOf(set), colourOf, top + i * (height + gap)));
  const total = top + panels.length * (height + gap);
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${total}" font-family="system-ui, 'DejaVu Sans', sans-serif">
<rect width="100%" height="100%" fill="#fff"/>
${text(20, 28, 'topknot: recall@10 against queries per second', { size: 17, weight: 600 })}
${text(20, 47, caption(about), { colour: quiet })}
${panels.join('\n')}
</svg>
`;
}

const dataSet = (row) => row.size.split(' ')[0];
const order = (name) => (name === 'topknot' ? 0 : 1);

/** The points of one contestant: [recall, queries a second, expansion]. */
function points(rows, name) {
  return rows
    .map((row) => {
      const ms = name === 'topknot' ? row.median_ms : row.peers[name];
      return [row.recall[name], (1000 * row.queries) / ms, row.size.match(/ef=(\d+)/)?.[1]];
    })
    .filter(([recall, rate]) => recall > 0 && rate > 0)
    .sort((a, b) => a[0] - b[0]);
}

function panel(title, rows, colourOf, y0) {
  const lines = [...colourOf.keys()].map((name) => [name, points(rows, name)]).filter(([, p]) => p.length > 0);
  const all = lines.flatMap(([, p]) => p);
  const low = Math.floor(Math.min(...all.map(([r]) => r)) * 20) / 20;
  const rates = all.map(([, rate]) => Math.log10(rate));
  const [least, most] = [Math.floor(Math.min(...rates)), Math.ceil(Math.max(...rates) + 1e-9)];
  const bottom = y0 + height - 40;
  const x = (recall) => left + ((recall - low) / (1 - low)) * (width - left - right);
  const y = (rate) => bottom - ((Math.log10(rate) - least) / (most - least)) * (height - 80);
  const ticks = Array.from({ length: Math.round((1 - low) * 20) + 1 }, (_, i) => low + i / 20);
  const every = Math.ceil(ticks.length / 11);
  const decades = Array.from({ length: most - least + 1 }, (_, i) => 10 ** (least + i));
  return [
    text(left, y0 + 16, title, { size: 14, weight: 600 }),
    ...ticks
      .filter((_, i) => i % every === 0)
      .flatMap((r) => [
        `<line x1="${x(r).toFixed(1)}" y1="${y(10 ** most).toFixed(1)}" x2="${x(r).toFixed(1)}" y2="${bottom}" stroke="${grid}"/>`,
        text(x(r), bottom + 18, r.toFixed(2), { anchor: 'middle', colour: quiet }),
      ]),
    ...decades.flatMap((rate) => [
      `<line x1="${left}" y1="${y(rate).toFixed(1)}" x2="${width - right}" y2="${y(rate).toFixed(1)}" stroke="${grid}"/>`,
      text(left - 8, y(rate) + 4, rate.toLocaleString('en'), { anchor: 'end', colour: quiet }),
    ]),
    text((left + width - right) / 2, bottom + 36, 'recall@10', { anchor: 'middle', colour: quiet }),
    ...lines.flatMap(([name, p], i) => curve(name, p, colourOf.get(name), x, y, y0 + 60 + 22 * i)),
  ].join('\n');
}

function curve(name, p, colour, x, y, legendY) {
  const exact = p.every(([recall]) => recall === 1);
  const path = p.map(([r, rate]) => `${x(r).toFixed(1)},${y(rate).toFixed(1)}`).join(' ');
  const marks = exact ? [p[Math.floor(p.length / 2)]] : p;
  return [
    ...(exact ? [] : [`<polyline points="${path}" fill="none" stroke="${colour}" stroke-width="1.5"/>`]),
    ...marks.map(([r, rate]) => dot(x(r), Number(y(rate).toFixed(1)), colour, exact ? 6 : 4)),
    ...(name === 'topknot'
      ? marks.map(([r, rate, ef]) => text(x(r) + 6, y(rate) - 6, `ef ${ef}`, { size: 10, colour: ink }))
      : []),
    dot(width - right + 24, legendY, colour, 5),
    text(width - right + 36, legendY + 4, name),
  ];
}
