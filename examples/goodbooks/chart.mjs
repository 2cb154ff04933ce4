// One SVG with two panels: quality of each model, latency of each kind of query.

const escapeXml = (text) =>
  String(text).replace(/[&<>"]/g, (c) => ({ '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' })[c]);

const style = `
  text { font-family: system-ui, 'DejaVu Sans', sans-serif; fill: #1f2933; }
  .title { font-size: 17px; font-weight: 600; }
  .note { font-size: 12px; fill: #616e7c; }
  .label { font-size: 13px; }
  .value { font-size: 12px; font-weight: 600; }
  .grid { stroke: #e4e7eb; }`;
const colours = ['#2563eb', '#94a3b8', '#d6dce4'];

/** Grouped horizontal bars. groups: [{label, bars: [{name, value, text}]}]; scale maps a value to 0..1. */
function panel({ title, note, groups, names, scale }, x, y, width) {
  const labelWidth = 150;
  const barHeight = 18;
  const span = width - labelWidth - 90;
  let at = y + 52;
  let out = `<text class="title" x="${x}" y="${y}">${escapeXml(title)}</text><text class="note" x="${x}" y="${y + 20}">${escapeXml(note)}</text>`;
  if (names.length > 1) {
    names.forEach((name, i) => {
      out += `<rect x="${x + i * 110}" y="${y + 32}" width="11" height="11" rx="2" fill="${colours[i]}"/><text class="note" x="${x + i * 110 + 16}" y="${y + 42}">${escapeXml(name)}</text>`;
    });
    at += 14;
  }
  for (const group of groups) {
    const middle = at + (group.bars.length * (barHeight + 3)) / 2;
    out += `<text class="label" x="${x + labelWidth - 12}" y="${middle + 3}" text-anchor="end">${escapeXml(group.label)}</text>`;
    for (const [i, bar] of group.bars.entries()) {
      const length = Math.max(1.5, scale(bar.value) * span);
      out += `<rect x="${x + labelWidth}" y="${at}" width="${length.toFixed(1)}" height="${barHeight}" rx="3" fill="${colours[i]}"/>`;
      out += `<text class="value" x="${(x + labelWidth + length + 7).toFixed(1)}" y="${at + 13.5}">${escapeXml(bar.text)}</text>`;
      at += barHeight + 3;
    }
    at += 14;
  }
  return { svg: out, bottom: at };
}

/**
 * @param quality {metrics: [name], models: [{name, values: [number]}]}
 * @param latency [{name, p50, p99}] in microseconds
 */
export function chart({ heading, quality, latency }) {
  const most = Math.max(...quality.models.flatMap((m) => m.values));
  const left = panel(
    {
      title: 'Quality, held-out ratings',
      note: 'higher is better',
      names: quality.models.map((m) => m.name),
      groups: quality.metrics.map((metric, j) => ({
        label: metric,
        bars: quality.models.map((m) => ({ value: m.values[j], text: m.values[j].toFixed(3) })),
      })),
      scale: (v) => v / most,
    },
    30,
    80,
    460,
  );
  const times = latency.flatMap((l) => [l.p50, l.p99]);
  const low = Math.log10(Math.min(...times)) - 0.4;
  const high = Math.log10(Math.max(...times));
  const text = (us) => (us < 1000 ? `${us.toFixed(us < 10 ? 1 : 0)} µs` : `${(us / 1000).toFixed(1)} ms`);
  const right = panel(
    {
      title: 'Latency of a query',
      note: 'logarithmic; lower is better',
      names: ['median', '99th percentile'],
      groups: latency.map((l) => ({
        label: l.name,
        bars: [
          { value: l.p50, text: text(l.p50) },
          { value: l.p99, text: text(l.p99) },
        ],
      })),
      scale: (v) => (Math.log10(v) - low) / (high - low),
    },
    510,
    80,
    460,
  );
  const height = Math.max(left.bottom, right.bottom) + 10;
  return `<svg xmlns="http://www.w3.org/2000/svg" width="1000" height="${height}" viewBox="0 0 1000 ${height}">
<style>${style}</style><rect width="1000" height="${height}" fill="#ffffff"/>
<text x="30" y="36" style="font-size:20px;font-weight:700">${escapeXml(heading)}</text>
${left.svg}
${right.svg}
</svg>
`;
}
