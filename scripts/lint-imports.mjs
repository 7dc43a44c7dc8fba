// Holds the house's shape: which room may import which, and that each package has one importer.
import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join, normalize, relative } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = join(dirname(fileURLToPath(import.meta.url)), '..')
const src = join(root, 'src')

// Inside the engine: each floor may use its own files and those before it. Rooms of one floor do not know each other.
const floors = [['.'], ['platform'], ['codec', 'chunker', 'crypto', 'hashindex', 'patterns'], ['repository', 'tar'], ['store'], ['archive'], ['cache'], ['operations']]

const packages = {
  'fuse-native': ['fs/fuse/fuse-native/adapter.ts'],
  'sodium-native': ['engine/crypto/blake2b.ts'],
  'lz4-napi': ['engine/codec/lz4.ts'],
  pako: ['engine/codec/zlib.ts'],
  'lzma-native': ['engine/codec/lzma.ts'],
  'zstd-napi': ['engine/codec/zstd.ts'],
  minimist: ['cli/args.ts'],
  qr: ['cli/output/key-page.ts'],
}
const anywhere = new Set(['lru-cache'])

// What changes files goes through engine/platform/files.ts, so that tests can count such calls, and fail or kill at each. These
// change none of ours: what is extracted or dumped for people, devices, terminals.
const changing = /^(?:write|writev|writeFile|appendFile|truncate|ftruncate|rename|link|symlink|unlink|rm|rmdir|mkdir|mkdtemp|copyFile|cp|fsync|fdatasync|createWriteStream|promises|chmod|fchmod|utimes|futimes)(?:Sync)?$/
const mayChange = [
  'engine/platform/files.ts', 'engine/operations/extract.ts', 'engine/store/open-job.ts', 'fs/fuse/kernel/notices-thread.ts', 'fs/fuse/kernel/attach.ts',
  'fs/fuse/kernel/notices.ts', 'fs/fuse/kernel/replies.ts', 'cli/background.ts', 'cli/output/stdout.ts', 'cli/output/answer-file.ts', 'cli/commands/debug/archive.ts', 'cli/commands/debug/repository.ts',
]

const floorOf = room => floors.findIndex(floor => floor.includes(room))
const files = readdirSync(src, { recursive: true }).map(String).filter(name => name.endsWith('.ts'))
const problems = []

for (const file of files) {
  const text = readFileSync(join(src, file), 'utf8').replace(/\/\*[\s\S]*?\*\//g, '').replace(/^\s*\/\/.*$/gm, '')
  const named = [...text.matchAll(/(?:\bfrom\s+|\bimport\s*\(\s*|\bimport\s+|\brequire\s*\(\s*|\bnew URL\(\s*)['"]([^'"]+)['"]/g)].map(match => match[1])
  if (!mayChange.includes(file)) {
    for (const [, names, from] of text.matchAll(/import\s+(?!type\b)([^'"]*?)\s+from\s+['"](node:fs|node:fs\/promises)['"]/g)) {
      const bad = names.startsWith('{') ? names.slice(1, -1).split(',').map(name => name.trim().split(/\s+as\s+/)[0]).filter(name => changing.test(name)) : [names]
      if (bad.length > 0) problems.push(`${file}: ${bad.join(', ')} of ${from}: what changes files goes through engine/platform/files.ts`)
    }
  }
  for (const name of named) {
    if (name.startsWith('node:')) continue
    if (name.startsWith('.')) {
      if (/\.(js|json)$/.test(name)) checkFile(file, normalize(join(dirname(file), name)).replace(/\.js$/, '.ts'))
      continue
    }
    const packageName = name.startsWith('@') ? name.split('/').slice(0, 2).join('/') : name.split('/')[0]
    if (anywhere.has(packageName)) continue
    if (!packages[packageName]) problems.push(`${file}: package '${packageName}' is not in the table of scripts/lint-imports.mjs`)
    else if (!packages[packageName].includes(file)) problems.push(`${file}: only ${packages[packageName].join(', ')} imports '${packageName}'`)
  }
}

function checkFile(from, to) {
  const [fromTop, toTop] = [from.split('/')[0], to.split('/')[0]]
  const allowed = { cli: ['cli', 'fs', 'engine'], fs: ['fs', 'engine'], engine: ['engine'] }[fromTop]
  if (!allowed) return
  if (toTop === '..') return // package.json for the version
  if (!allowed.includes(toTop)) problems.push(`${from}: ${fromTop} must not import ${to}`)
  if (fromTop !== 'engine' || toTop !== 'engine') return
  const [fromRoom, toRoom] = [roomOf(from), roomOf(to)]
  if (fromRoom === toRoom) return
  const [fromFloor, toFloor] = [floorOf(fromRoom), floorOf(toRoom)]
  if (fromFloor < 0 || toFloor < 0) problems.push(`${from}: unknown room '${fromFloor < 0 ? fromRoom : toRoom}'`)
  else if (toFloor >= fromFloor) problems.push(`${from}: ${fromRoom} must not import ${to}`)
}

function roomOf(file) {
  const parts = relative('engine', file).split('/')
  return parts.length === 1 ? '.' : parts[0]
}

for (const problem of problems) console.error(problem)
if (problems.length > 0) process.exit(1)
