import { parseArgs } from 'node:util';

export const usage = `npm run bench -- [options]
  --case NAME      only this case (repeatable)
  --size TEXT      only sizes whose label contains TEXT (repeatable)
  --threads N      threads for topknot and its peers (default: the cores this process may use)
  --quick          tiny sizes: under a minute on two cores
  --json FILE      one JSON row per line; FILE.svg and FILE.machine.json are written beside it
  --budget SEC     time for each row (default 3; 0.3 with --quick)
  --no-peers       topknot alone
  --data DIR       matrices for the als case: DIR/gowalla and DIR/ml20m with indptr.i32, indices.i32, meta.json
                   (default: made by bench/data/csr.mjs)
  --data-dir DIR   public datasets: DIR/gowalla/train.txt.gz and test.txt.gz for the evaluation case
Peers are found in $PEERS_NODE/node_modules or bench/node_modules (npm run bench:peers); implicit through
$IMPLICIT_PYTHON (a Python, default python3) and $PYTHONPATH.`;

export function readOptions(argv) {
  const { values } = parseArgs({
    args: argv,
    options: {
      case: { type: 'string', multiple: true, default: [] },
      size: { type: 'string', multiple: true, default: [''] },
      threads: { type: 'string' },
      quick: { type: 'boolean', default: false },
      json: { type: 'string' },
      budget: { type: 'string' },
      'no-peers': { type: 'boolean', default: false },
      data: { type: 'string' },
      'data-dir': { type: 'string' },
      help: { type: 'boolean', default: false },
    },
  });
  const number = (name, fallback) => {
    if (values[name] === undefined) return fallback;
    const x = Number(values[name]);
    if (!(x > 0)) throw new Error(`--${name}: expected a positive number but received '${values[name]}'`);
    return x;
  };
  return {
    help: values.help,
    cases: values.case.flatMap((names) => names.split(',')),
    sizes: values.size,
    threads: number('threads'),
    quick: values.quick,
    json: values.json,
    budgetMs: 1000 * number('budget', values.quick ? 0.3 : 3),
    peers: !values['no-peers'],
    data: values.data,
    dataDir: values['data-dir'],
  };
}
