// Builds src into dist: one script, one style sheet, one icon and the page
// that names them. Names carry a hash of the content, so the server may let
// browsers keep them for ever. With --check it builds aside and compares.
import { build } from 'esbuild';
import { createHash } from 'node:crypto';
import { mkdtemp, mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';

const root = dirname(fileURLToPath(import.meta.url));
const limit = 100_000; // bytes, gzipped, of everything the page loads

async function buildInto(out) {
  const result = await build({
    absWorkingDir: root,
    entryPoints: { app: 'src/main.tsx', style: 'src/style.css' },
    entryNames: '[name]-[hash]',
    outdir: out,
    bundle: true,
    minify: true,
    format: 'esm',
    target: 'es2023',
    jsx: 'automatic',
    jsxImportSource: 'preact',
    charset: 'utf8',
    legalComments: 'none',
    metafile: true,
    logLevel: 'warning',
    write: false,
  });
  await rm(out, { recursive: true, force: true });
  await mkdir(join(out, 'assets'), { recursive: true });
  const names = {};
  for (const file of result.outputFiles) {
    const name = file.path.split('/').pop();
    names[name.startsWith('app') ? 'app' : 'style'] = name;
    await writeFile(join(out, 'assets', name), file.contents);
  }
  const icon = await readFile(join(root, 'src/icon.svg'));
  names.icon = `icon-${createHash('sha256').update(icon).digest('hex').slice(0, 8).toUpperCase()}.svg`;
  await writeFile(join(out, 'assets', names.icon), icon);
  let page = await readFile(join(root, 'src/index.html'), 'utf8');
  for (const [key, name] of Object.entries(names)) page = page.replace(`{{${key}}}`, `/assets/${name}`);
  await writeFile(join(out, 'index.html'), page);
}

async function files(dir) {
  const all = await readdir(dir, { recursive: true, withFileTypes: true });
  const found = new Map();
  for (const f of all.filter((f) => f.isFile())) {
    const path = join(f.parentPath, f.name);
    found.set(path.slice(dir.length + 1), await readFile(path));
  }
  return found;
}

function size(found) {
  let total = 0;
  for (const [name, bytes] of [...found].sort()) {
    const gz = gzipSync(bytes, { level: 9 }).length;
    total += gz;
    console.log(`${String(bytes.length).padStart(8)} B ${String(gz).padStart(7)} B gz  ${name}`);
  }
  console.log(`${''.padStart(8)}   ${String(total).padStart(7)} B gz  in all (limit ${limit})`);
  if (total > limit) throw new Error('the page is over its limit');
}

async function check() {
  const aside = await mkdtemp(join(tmpdir(), 'ghostlight-ui-'));
  try {
    await buildInto(aside);
    const [want, have] = [await files(aside), await files(join(root, 'dist'))];
    for (const name of new Set([...want.keys(), ...have.keys()])) {
      const same = want.has(name) && have.has(name) && want.get(name).equals(have.get(name));
      if (!same) throw new Error(`dist/${name} is not what src builds: run npm run build`);
    }
    size(want);
  } finally {
    await rm(aside, { recursive: true, force: true });
  }
}

if (process.argv.includes('--check')) {
  await check();
} else {
  await buildInto(join(root, 'dist'));
  size(await files(join(root, 'dist')));
}
