// Plain terminal output: headings, a progress bar, tables. Colour only where the terminal shows it.
import { stdout } from 'node:process';
import { stripVTControlCharacters } from 'node:util';

const colour = stdout.isTTY && !process.env.NO_COLOR;
const paint = (code) => (text) => (colour ? `\x1b[${code}m${text}\x1b[0m` : `${text}`);
export const bold = paint(1);
export const dim = paint(2);
export const green = paint(32);
export const cyan = paint(36);

let step = 0;
export function heading(text) {
  step += 1;
  console.log(`\n${cyan(bold(` ${step}  ${text}`))}`);
}
export const line = (text = '') => console.log(text ? `    ${text}` : '');

/** A bar that is redrawn in place on a terminal, and printed once at its end elsewhere. */
export function progressBar(label, width = 30) {
  const draw = (share, note) => {
    const full = Math.round(share * width);
    return `    ${label} ${green('█'.repeat(full))}${dim('░'.repeat(width - full))} ${String(Math.round(share * 100)).padStart(3)}% ${dim(note)}`;
  };
  return {
    update(share, note = '') {
      if (stdout.isTTY) stdout.write(`\r${draw(share, note)}\x1b[K`);
    },
    end(note = '') {
      stdout.write(`${stdout.isTTY ? '\r' : ''}${draw(1, note)}${stdout.isTTY ? '\x1b[K' : ''}\n`);
    },
  };
}

const visible = (text) => stripVTControlCharacters(String(text));
const pad = (text, width, right) => {
  const space = ' '.repeat(Math.max(0, width - [...visible(text)].length));
  return right ? space + text : text + space;
};

/** Columns as wide as their widest cell; all but the first are right-aligned. */
export function table(head, rows) {
  const widths = head.map((h, i) => Math.max(...[h, ...rows.map((r) => r[i])].map((x) => [...visible(x)].length)));
  const print = (cells, style = (x) => x) => line(cells.map((c, i) => style(pad(c, widths[i], i > 0))).join('   '));
  print(head, dim);
  for (const row of rows) print(row);
}

export const number = (x, digits = 0) =>
  x.toLocaleString('en-US', { minimumFractionDigits: digits, maximumFractionDigits: digits });
export const seconds = (ms) => (ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`);
export const micros = (us) =>
  us < 1000 ? `${us.toFixed(us < 10 ? 1 : 0)} µs` : `${(us / 1000).toFixed(us < 10_000 ? 2 : 1)} ms`;
export const cut = (text, width) => ([...text].length > width ? `${[...text].slice(0, width - 1).join('')}…` : text);
