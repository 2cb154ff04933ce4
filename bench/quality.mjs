// npm run bench:quality: how good the models are on public data, beside the published figures.
//   npm run bench:quality -- --data DIR [--json FILE] [--only DATASET[,DATASET]] [--models MODEL[,MODEL]] [--threads N]
//   npm run bench:quality -- --data DIR --tune [--model als|bpr|logistic-mf] [--only DATASET] [--json FILE]
// DIR holds the data sets in the forms that quality/read.mjs reads; those that are missing are skipped, and it says so.
// One JSON row per line: { dataset, protocol, model, options, metric, value, seconds }, seconds being those of the fit
// (with --tune: of the fits and evaluations up to the last sweep).
import { existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { evaluate, setThreads } from '../dist/index.js';
import { experiments } from './quality/experiments.mjs';
import { matrices } from './quality/matrices.mjs';
import { fit, label } from './quality/models.mjs';
import { tune, tuneOther } from './quality/tune.mjs';

const { values: args } = parseArgs({
  options: {
    data: { type: 'string' },
    json: { type: 'string' },
    only: { type: 'string' },
    models: { type: 'string' },
    threads: { type: 'string' },
    tune: { type: 'boolean', default: false },
    model: { type: 'string', default: 'als' },
  },
});
if (!args.data) throw new Error('--data: expected the folder of the data sets');
if (args.threads) setThreads(Number(args.threads));
const only = args.only?.split(',');
const unknown = only?.filter((name) => !experiments.some((e) => e.dataset === name)) ?? [];
if (unknown.length) throw new Error(`--only: no data set called ${unknown.join(', ')}`);

/** Models without chance or choice: published figures are to be met to the last digit. */
const exact = ['popularity', 'pure-svd'];
/** Metrics of which less is better. */
const errors = ['rmse', 'mae'];

const wanted = experiments.filter((e) => (!only || only.includes(e.dataset)) && (!args.tune || e.tunable));
const rows = [];
for (const experiment of wanted) {
  if (!existsSync(join(args.data, experiment.dataset))) {
    console.log(`${experiment.dataset}: skipped, ${join(args.data, experiment.dataset)} is not there`);
    continue;
  }
  console.log(`\n${experiment.dataset}, ${experiment.protocol}${args.tune ? ': a tenth of train held out' : ''}`);
  rows.push(...(args.tune ? await tuned(experiment) : await measured(experiment)));
}
if (args.json) writeFileSync(args.json, rows.map((row) => `${JSON.stringify(row)}\n`).join(''));

async function measured({ dataset, protocol, load, evaluation, models, goals, tolerance = 5e-6 }) {
  const parts = await load(args.data);
  const folds = await Promise.all((Array.isArray(parts) ? parts : [parts]).map(matrices));
  const found = [];
  const wantedModels = args.models?.split(',');
  for (const model of models.filter(({ model }) => wantedModels?.includes(model) ?? true)) {
    const { values, seconds } = await mean(folds, (data) => fitAndEvaluate(model, data, evaluation));
    const cells = Object.entries(values).map(([metric, value]) => {
      found.push({ dataset, protocol, ...model, metric, value, seconds });
      return `${metric} ${value.toFixed(5)}${verdict(model, metric, goals[label(model)]?.[metric], value, tolerance)}`;
    });
    console.log(`  ${label(model).padEnd(12)} ${cells.join('  ')}  (fit ${seconds.toFixed(1)} s)`);
  }
  return found;
}

async function fitAndEvaluate(model, data, evaluation) {
  const how = data.candidates ? { ...evaluation, protocol: { candidates: data.candidates } } : evaluation;
  const { fitted, seconds } = await fit(model, data.train);
  const { values } = await evaluate(fitted, data, how);
  fitted.dispose();
  return { values, seconds };
}

/** The mean of the values of all folds, and of their seconds. */
async function mean(folds, measure) {
  const sums = { values: {}, seconds: 0 };
  for (const fold of folds) {
    const { values, seconds } = await measure(fold);
    sums.seconds += seconds / folds.length;
    for (const [metric, value] of Object.entries(values))
      sums.values[metric] = (sums.values[metric] ?? 0) + value / folds.length;
  }
  return sums;
}

function verdict({ model }, metric, goal, value, tolerance) {
  if (goal === undefined) return '';
  const good = errors.includes(metric) ? value <= goal : value >= goal;
  const met = exact.includes(model) ? Math.abs(value - goal) <= tolerance : good;
  return ` (${goal}: ${met ? 'reached' : 'MISSED'})`;
}

async function tuned(experiment) {
  const { dataset, protocol } = experiment;
  const how = { log: (line) => console.log(`  ${line}`) };
  const best = await (args.model === 'als'
    ? tune(experiment, args.data, how)
    : tuneOther(args.model, experiment, args.data, how));
  console.log('  best:');
  for (const { options, recall, ndcg } of best.slice(0, 8))
    console.log(`  recall@20 ${recall.toFixed(5)}  ndcg@20 ${ndcg.toFixed(5)}  ${JSON.stringify(options)}`);
  return best.flatMap(({ options, recall, ndcg, seconds }) =>
    Object.entries({ 'recall@20': recall, 'ndcg@20': ndcg }).map(([metric, value]) => ({
      dataset,
      protocol: `${protocol}, tenth of train held out`,
      model: args.model,
      options,
      metric,
      value,
      seconds,
    })),
  );
}
