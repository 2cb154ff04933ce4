// Memory in use, for tests that compare it before and after.
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { memory } from '../../lib/index.js';

setFlagsFromString('--expose-gc');
const gc: () => void = runInNewContext('gc');

/** What memory() tells once nothing is left to collect: V8 may free at any moment what earlier tests dropped. */
export async function settledMemory(): Promise<ReturnType<typeof memory>> {
  for (let i = 0; i < 3; i++) {
    gc();
    await new Promise((done) => setTimeout(done, 5)); // finalizers run between turns of the event loop
  }
  return memory();
}
