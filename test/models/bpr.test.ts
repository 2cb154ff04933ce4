import { BPR } from '../../lib/index.js';
import { modelSuite } from './suite.js';

const small = { factors: 8, iterations: 5 } as const;
for (const [name, options, needsHistory] of [
  ['bpr', { computeLoss: true }, true],
  ['bpr-popularity', { negativeSampling: 'popularity' }, true],
  ['bpr-hard', { negativeSampling: 'hard', candidates: 3 }, true],
] as const)
  modelSuite(
    name,
    () => new BPR({ ...small, ...options }),
    (path) => BPR.load(path),
    { needsHistory },
  );
