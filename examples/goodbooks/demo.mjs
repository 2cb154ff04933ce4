// From raw ratings to recommendations in one Node process: read, split, train, compare, save, reload, ask.
//   npm run demo
import { mkdirSync, statSync, writeFileSync } from 'node:fs';
import { relative } from 'node:path';
import { monitorEventLoopDelay, performance } from 'node:perf_hooks';
import { fileURLToPath } from 'node:url';
import { ALS, evaluate, Interactions, isa, Popularity, Random, splitRatio, threads } from '../../dist/index.js';
import { readBooks } from './books.mjs';
import { chart } from './chart.mjs';
import { measure } from './latency.mjs';
import { bold, cut, dim, green, heading, line, micros, number, progressBar, seconds, table } from './terminal.mjs';

const at = (name) => fileURLToPath(new URL(name, import.meta.url));
const shown = (path) => relative(process.cwd(), path);
mkdirSync(at('out'), { recursive: true });
const loop = monitorEventLoopDelay({ resolution: 1 });

console.log(bold('\n topknot: recommendations without leaving Node'));
console.log(dim(`    Node ${process.version}, ${threads()} threads, ${isa()}`));

heading('Read the ratings');
let start = performance.now();
const ratings = await Interactions.read(at('data/ratings.csv.gz'), {
  user: 'user_id',
  item: 'book_id',
  value: 'rating',
});
const books = await readBooks(at('data/books.csv.gz'));
line(
  `${number(ratings.size)} ratings by ${number(ratings.users.size)} readers of ${number(ratings.items.size)} books, in ${seconds(performance.now() - start)}`,
);
line(dim('goodbooks-10k sample by Zygmunt Zając, CC BY-SA 4.0'));
const { train, test } = await splitRatio(ratings, { test: 0.2, seed: 1 });
line(`${number(train.size)} to train on, ${number(test.size)} held out`);

heading('Train');
// That somebody chose to read a book says more about their taste than the stars do. The settings were chosen on a tenth
// of the training part, held out.
const choices = await train.weight('binary');
const model = new ALS({
  factors: 64,
  unobservedWeight: 0.1,
  regularization: 0.01,
  iterations: 8,
  seed: 1,
  computeLoss: true,
});
const bar = progressBar('ALS');
loop.enable();
start = performance.now();
let loss;
await model.fit(choices, {
  onProgress: (p) => {
    loss = p.loss ?? loss;
    bar.update(p.done / p.total, loss === undefined ? '' : `loss ${number(loss)}`);
  },
});
const fitTime = performance.now() - start;
loop.disable();
bar.end(`loss ${number(loss)}   ${seconds(fitTime)}`);
const late = Math.max(0, loop.percentile(99) / 1e6 - 1);
line(dim(`event-loop delay meanwhile, 99th percentile: ${late.toFixed(1)} ms`));

heading('Compare with the baselines, on the ratings held out');
const models = [
  ['ALS', model],
  ['popularity', await new Popularity().fit(train)],
  ['random', await new Random({ seed: 1 }).fit(train)],
];
const metrics = ['recall@20', 'ndcg@20', 'precision@20', 'coverage@20'];
const found = [];
for (const [name, m] of models) {
  const { values } = await evaluate(
    m,
    { train, test },
    { k: 20, metrics: ['recall', 'ndcg', 'precision', 'coverage'] },
  );
  found.push({ name, values: metrics.map((metric) => values[metric]) });
}
table(
  ['', ...metrics],
  found.map(({ name, values }, i) => [
    i ? name : bold(name),
    ...values.map((v) => (i ? v.toFixed(4) : green(v.toFixed(4)))),
  ]),
);

heading('Save, reload');
const file = at('out/goodbooks.safetensors');
start = performance.now();
await model.save(file);
const saved = performance.now() - start;
start = performance.now();
const reloaded = await ALS.load(file);
line(
  `${shown(file)}: ${(statSync(file).size / 1e6).toFixed(1)} MB, written in ${seconds(saved)}, read in ${seconds(performance.now() - start)}`,
);
const reader = [...train.users][7];
const same = JSON.stringify(await model.recommend(reader)) === JSON.stringify(await reloaded.recommend(reader));
if (!same) throw new Error('the reloaded model answers differently');
line(green('the reloaded model gives the same answers'));

heading('Ask it');
const title = (id) => cut(books.get(Number(id)).title, 58);
const byline = (id) => `${title(id)} ${dim('·')} ${dim(cut(books.get(Number(id)).authors, 30))}`;
line(`Reader ${bold(reader)} gets`);
line();
for (const { item } of await reloaded.recommend(reader, { k: 5 })) {
  line(`  ${byline(item)}`);
  const { contributions } = await reloaded.explain(reader, item, { k: 2 });
  line(dim(`    because of ${contributions.map((c) => title(c.item)).join(' and ')}`));
}
const seed = 7; // The Hobbit
line();
line(`Readers of ${bold(title(seed))} also read`);
line();
for (const { item } of await reloaded.similarItems(seed, { k: 5 })) line(`  ${byline(item)}`);
const liked = [2, 7]; // Harry Potter and The Hobbit
line();
line(`Somebody new, who has read ${liked.map((id) => bold(title(id))).join(' and ')}, gets`);
line();
for (const { item } of await reloaded.recommend({ history: liked }, { k: 5 })) line(`  ${byline(item)}`);

heading('Latency');
const latency = await measure(reloaded, { liked, seed });
table(
  ['', 'median', '99th percentile', 'a second'],
  latency.map((l) => [l.name, micros(l.p50), micros(l.p99), number(Math.round((1e6 / l.p50) * (l.batch ?? 1)))]),
);

const picture = at('out/goodbooks.svg');
writeFileSync(
  picture,
  chart({ heading: 'topknot on goodbooks-sample', quality: { metrics: metrics.slice(0, 3), models: found }, latency }),
);
console.log(`\n    A picture of all this: ${bold(shown(picture))}\n`);
