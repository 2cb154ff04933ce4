// A peer in a Python process of its own, which waits while topknot runs.
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';

/**
 * `{ versions, ask, close }`: the script prints a JSON line with its versions and then one for each line that it is asked.
 */
export async function openPython(python, script, args) {
  const child = spawn(python, [script, ...args.map(String)], { stdio: 'pipe' });
  let complaint = '';
  child.stderr.on('data', (chunk) => {
    complaint = (complaint + chunk).slice(-2000);
  });
  child.on('error', (error) => {
    complaint = error.message;
  });
  child.stdin.on('error', () => {}); // it has ended: the missing answer says so
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const answer = async () => {
    const { value, done } = await lines.next();
    if (done) throw new Error(complaint.trim().split('\n').at(-1) || `${python} ended without an answer`);
    return JSON.parse(value);
  };
  const versions = await answer();
  return {
    versions,
    ask(line) {
      child.stdin.write(`${line}\n`);
      return answer();
    },
    async close() {
      const ended = new Promise((resolve) => child.once('close', resolve));
      child.stdin.end();
      if (child.exitCode === null) await ended;
    },
  };
}
