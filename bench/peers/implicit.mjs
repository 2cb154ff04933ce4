// The Python library `implicit`, in a process of its own that waits while topknot runs.
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

const script = fileURLToPath(new URL('./implicit_als.py', import.meta.url));

/**
 * `{ version, run, close }`, where run() is one iteration and gives its own time as `{ ms: [...] }`.
 * Needs a Python ($IMPLICIT_PYTHON, else python3) that can import implicit, numpy and scipy ($PYTHONPATH).
 */
export async function openImplicit({ folder, factors, solver, threads }) {
  const python = process.env.IMPLICIT_PYTHON ?? 'python3';
  const child = spawn(python, [script, folder, String(factors), solver, String(threads)], { stdio: 'pipe' });
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
    version: `${versions.implicit} (numpy ${versions.numpy})`,
    async run() {
      child.stdin.write('\n');
      return { ms: [(await answer()).seconds * 1000] };
    },
    async close() {
      const ended = new Promise((resolve) => child.once('close', resolve));
      child.stdin.end();
      if (child.exitCode === null) await ended;
    },
  };
}
