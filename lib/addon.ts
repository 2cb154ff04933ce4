import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';

/** The package's own directory. */
export const root = fileURLToPath(new URL('..', import.meta.url));
const require = createRequire(import.meta.url);

/** 'linux-x64, glibc 2.36' or 'linux-x64, musl'. */
export function platform(): string {
  const { header } = process.report.getReport() as { header: { glibcVersionRuntime?: string } };
  const libc = header.glibcVersionRuntime ? `glibc ${header.glibcVersionRuntime}` : 'musl';
  return `${process.platform}-${process.arch}${process.platform === 'linux' ? `, ${libc}` : ''}`;
}

/** The addon's file: build/Release before prebuilds/. Throws when there is neither. */
export function addonPath(): string {
  return require('node-gyp-build').path(root);
}

export function loadAddon(): unknown {
  return require(addonPath());
}

/** What was tried, why it failed and the commands that help. */
export function explain(cause: Error): string {
  let tried = `${root}build/Release, ${root}prebuilds`;
  try {
    tried = addonPath();
  } catch {
    // There is no file for this platform: both directories were tried.
  }
  return [
    `the native addon does not load on ${platform()}, Node ${process.version}.`,
    `  tried: ${tried}`,
    `  error: ${cause.message.split('\n')[0]}`,
    'Build it from source (Debian, Ubuntu):',
    '  sudo apt-get install -y g++ make cmake libhwy-dev libeigen3-dev',
    '  npm approve-scripts topknot   # npm 11 and later run no install script that is not approved',
    '  npm rebuild topknot',
  ].join('\n');
}
