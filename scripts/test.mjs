// All tests: the C++ ones by ctest, then vitest. Ends with "N passed, N failed", both together.
//   node scripts/test.mjs [pattern...] [vitest options]     a pattern picks test files, of C++ by name too
import { spawn } from 'node:child_process';
import { mkdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { buildEnvironment, logged, root, run, say, state } from './steps.mjs';
import { jobs } from './toolchain.mjs';

const args = process.argv.slice(2);
const patterns = args.filter((arg) => !arg.startsWith('-'));
const total = { passed: 0, failed: 0, skipped: 0 };

/** Runs ctest and counts the "ok   name" and "FAIL name" lines of the cases; a program that dies counts as a failure. */
function ctest(build, select) {
  return new Promise((resolve, reject) => {
    const child = spawn('ctest', ['--test-dir', build, '-V', '--timeout', '300', ...select], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const cases = new Map();
    let rest = '';
    child.stdout.on('data', (chunk) => {
      const lines = (rest + chunk).split('\n');
      rest = lines.pop();
      for (const line of lines) {
        const [, program, text] = /^(\d+): (.*)$/.exec(line) ?? [];
        const [, index, name, result] = /^ *\d+\/\d+ Test +#(\d+): (\S+) \.*(.*)$/.exec(line) ?? [];
        if (program && !/^(Test (command|timeout)|Working Directory|Environment variables| \w+=)/.test(text)) {
          console.log(text);
          const [, kind] = /^(ok|FAIL|skip) +\S/.exec(text) ?? [];
          const count = cases.get(program) ?? cases.set(program, { ok: 0, FAIL: 0, skip: 0 }).get(program);
          if (kind) count[kind] += 1;
        } else if (index) {
          const count = cases.get(index) ?? { ok: 0, FAIL: 0, skip: 0 };
          const passed = /^ +Passed/.test(result);
          const skipped = /\*Skipped/.test(result); // by its exit code: what it needs is not on this machine
          if (skipped) count.skip = Math.max(count.skip, 1);
          if (!passed && !skipped && count.FAIL === 0) count.FAIL = 1;
          if (passed && count.ok + count.skip === 0) count.ok = 1;
          console.log(`${name}:${result.replaceAll(/ +/g, ' ')}`);
          total.passed += count.ok;
          total.failed += count.FAIL;
          total.skipped += count.skip;
        }
      }
    });
    child.on('error', reject);
    child.on('close', resolve);
  });
}

async function cppTests() {
  const build = join(root, 'build');
  await logged('cmake', ['--build', build, '--target', 'topknot_tests', '--parallel', String(jobs())], {
    log: join(state, 'cpp-tests.log'),
    env: buildEnvironment(),
    title: 'C++ tests',
  });
  await ctest(build, patterns.length ? ['-R', patterns.join('|')] : []);
}

async function vitest() {
  const report = join(state, 'vitest.json');
  rmSync(report, { force: true });
  const reporters = ['--reporter=default', '--reporter=json', `--outputFile.json=${report}`];
  const none = patterns.length && total.passed + total.failed > 0 ? ['--passWithNoTests'] : [];
  const code = await run(join(root, 'node_modules', '.bin', 'vitest'), ['run', ...reporters, ...none, ...args]);
  const before = total.failed;
  try {
    const result = JSON.parse(readFileSync(report, 'utf8'));
    total.passed += result.numPassedTests;
    total.failed += result.numFailedTests;
    total.skipped += result.numPendingTests + result.numTodoTests;
    // A file that does not even load has no test to count.
    total.failed += result.testResults.filter(
      (file) => file.status === 'failed' && !file.assertionResults.some((test) => test.status === 'failed'),
    ).length;
  } catch (error) {
    if (code === 0) throw error;
  }
  if (code !== 0 && total.failed === before) total.failed += 1;
}

mkdirSync(state, { recursive: true });
for (const part of [cppTests, vitest]) {
  try {
    await part();
  } catch (error) {
    say(error.message);
    total.failed += 1;
  }
}
console.log(`\n${total.passed} passed, ${total.failed} failed${total.skipped ? `, ${total.skipped} skipped` : ''}`);
process.exitCode = total.failed > 0 || total.passed === 0 ? 1 : 0;
