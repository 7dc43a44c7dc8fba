/**
 * check beside the real Borg: each damage is done to one repository, of which Borg repairs one copy and borgfs another. Both must
 * find the same, leave the same behind, and have nothing to say about what the other one repaired.
 */
import test, { type ExecutionContext } from 'ava'
import { readFileSync, truncateSync, writeFileSync } from 'node:fs'
import { haveBorg, Sandbox, type Ran } from '../helpers/sandbox.js'

const run = haveBorg ? test.serial : test.serial.skip
if (!haveBorg) console.error('SKIPPED aloud: test/interop/check needs the real borg')

const sure = { BORG_CHECK_I_KNOW_WHAT_I_AM_DOING: 'YES' }
type Mode = 'none' | 'repokey' | 'repokey-blake2' | 'authenticated'

/** Repositories to do harm to, one for each mode, made once. */
const originals = new Map<Mode, Sandbox>()
test.after.always(() => {
  for (const sandbox of originals.values()) sandbox.close()
})

function original(mode: Mode): Sandbox {
  let sandbox = originals.get(mode)
  if (!sandbox) {
    sandbox = new Sandbox(`check-${mode}`)
    originals.set(mode, sandbox)
    // Links whose targets make a stream of several chunks, one file of several chunks.
    sandbox.sh(String.raw`mkdir -p source/many; cd source; long=$(printf 'n%.0s' $(seq 3900)); for i in $(seq 200); do ln -s $i-$long many/$i; done
      head -c 200000 /dev/urandom > big; head -c 30000 /dev/urandom > small; head -c 100000 /dev/zero > zeros; ln small linked`)
    sandbox.borg(['init', '-e', mode, 'repo'])
    sandbox.borg(['create', '--chunker-params', '10,16,14,63', '-C', 'none', 'repo::first', 'source'])
    sandbox.sh('head -c 5000 /dev/urandom > source/later')
    sandbox.borg(['create', '--chunker-params', '10,16,14,63', '-C', 'none', 'repo::second', 'source'])
    for (const archive of ['first', 'second']) sandbox.borg(['debug', 'dump-archive', `repo::${archive}`, `${archive}.json`])
  }
  return sandbox
}

/** Each program with a home of its own, as two copies of one repository must not meet in one client. */
class Copies {
  readonly sandbox: Sandbox

  constructor(name: string, mode: Mode) {
    this.sandbox = new Sandbox(`check-${name}`)
    this.sandbox.sh(`cp -a '${original(mode).folder}'/. .`)
  }

  /** The facts of an archive as `borg debug dump-archive` tells them. */
  dump(archive: string): { _manifest_entry: { id: string }; _meta: { items: string[] }; _items: { path: string; chunks?: [string, number, number][] }[] } {
    return JSON.parse(readFileSync(this.sandbox.path(`${archive}.json`), 'utf8').replaceAll(String.raw`\u007f`, '')) as never
  }

  chunksOf(archive: string, path: string): string[] {
    return this.dump(archive)._items.find(item => item.path === `source/${path}`)!.chunks!.map(([id]) => id)
  }

  delete(...ids: string[]): void {
    this.sandbox.borg(['debug', 'delete-obj', 'repo', ...ids])
  }

  get(id: string): Buffer {
    this.sandbox.borg(['debug', 'get-obj', 'repo', id, 'object'])
    return readFileSync(this.sandbox.path('object'))
  }

  put(id: string, object: Buffer): void {
    writeFileSync(this.sandbox.path('object'), object)
    this.sandbox.borg(['debug', 'put-obj', 'repo', id, 'object'])
  }

  /** Damage behind the CRC: the entry is sound, the object in it is not. */
  flip(id: string, at = -3): void {
    const object = this.get(id)
    object[at < 0 ? object.length + at : at]! ^= 1
    this.put(id, object)
  }

  /** Path of the segment that holds most. */
  largestSegment(): string {
    return this.sandbox.sh('ls -S repo/data/0/* | head -1').stdout.trim()
  }

  split(): void {
    this.sandbox.sh('for p in borg borgfs; do mkdir -p of-$p/home; cp -a repo of-$p/repo; done')
  }

  borg(which: 'borg' | 'borgfs', args: readonly string[]): Ran {
    return this.sandbox.borg(args, this.#options(which))
  }

  borgfs(which: 'borg' | 'borgfs', args: readonly string[]): Ran {
    return this.sandbox.borgfs(args, this.#options(which))
  }

  /** Each program on the copy that is its own. */
  both(args: readonly string[]): { borg: Ran; borgfs: Ran } {
    return { borg: this.borg('borg', args), borgfs: this.borgfs('borgfs', args) }
  }

  #options(which: 'borg' | 'borgfs') {
    return { cwd: this.sandbox.path(`of-${which}`), env: { ...sure, BORG_BASE_DIR: this.sandbox.path(`of-${which}/home`) }, ok: 'any' as const }
  }

  /** What can be had of both archives. Zeros that were lost are whole again here, and for Borg only after a further check. */
  contents(which: 'borg' | 'borgfs'): string {
    return ['first', 'second'].map(name => {
      const listed = this.borgfs(which, ['list', '--format', '{mode} {path:.40} {size} {health} {sha256}{NL}', `repo::${name}`])
      return `${name}: ${listed.rc}\n${listed.stdout.replace(/zeros 100000 broken/, 'zeros 100000 healthy')}`
    }).join('\n')
  }

  /** Same as t.is, without pages of output. */
  sameContents(t: ExecutionContext): void {
    const [ours, theirs] = [this.contents('borgfs').split('\n'), this.contents('borg').split('\n')]
    t.deepEqual(ours.filter(line => !theirs.includes(line)), [])
    t.deepEqual(theirs.filter(line => !ours.includes(line)), [])
  }

  close(): void {
    this.sandbox.close()
  }
}

/** Messages without what differs by nature: the question, the path, set order. */
function said({ stderr }: Ran): string[] {
  return stderr.split('\n').filter(line => line !== '' && !/^(This is a potentially|check --repair might|capable of dealing|Type 'YES')/.test(line))
    .map(line => line.replace(/of-borg(fs)?\//g, '').replace(/\d+ superseded/, 'N superseded')).sort()
}

interface Damage {
  readonly name: string
  readonly mode: Mode
  readonly options?: readonly string[]
  readonly harm: (copies: Copies) => void
  /** Borg cannot cope: only borgfs repairs, and Borg must find nothing to complain about afterwards. */
  readonly beyondBorg?: boolean
  /** Borg cannot cope unless it repairs. */
  readonly findingBeyondBorg?: boolean
}

const manifest = '0'.repeat(64)
const damages: readonly Damage[] = [
  { name: 'no damage', mode: 'repokey', harm: () => undefined },
  {
    name: 'chunks of files are gone, one of zeros too, and there is an object that nobody refers to', mode: 'none',
    harm: copies => {
      copies.delete(copies.chunksOf('first', 'big')[1]!, copies.chunksOf('first', 'zeros')[0]!)
      copies.put('ab'.repeat(32), Buffer.from([2, 0, 0, 1]))
    },
  },
  {
    name: 'a chunk of an item stream and the metadata of another archive are gone', mode: 'repokey',
    harm: copies => copies.delete(copies.dump('first')._meta.items[1]!, copies.dump('second')._manifest_entry.id),
  },
  { name: 'the MAC of a chunk is wrong, and nothing else', mode: 'repokey', options: ['--verify-data'], harm: copies => copies.flip(copies.chunksOf('first', 'big')[1]!, 5) },
  { name: 'a chunk of a file does not open', mode: 'repokey-blake2', options: ['--verify-data'], harm: copies => copies.flip(copies.chunksOf('first', 'big')[1]!) },
  {
    name: 'a chunk of a file and the metadata of an archive are not what their ids say', mode: 'authenticated', options: ['--verify-data'],
    harm: copies => {
      copies.flip(copies.chunksOf('first', 'small')[0]!)
      copies.flip(copies.dump('first')._manifest_entry.id)
    },
  },
  {
    name: 'a chunk of an item stream and the metadata of another archive do not open', mode: 'repokey', beyondBorg: true,
    harm: copies => {
      copies.flip(copies.dump('first')._meta.items[1]!)
      copies.flip(copies.dump('second')._manifest_entry.id)
    },
  },
  { name: 'a chunk of the item stream does not open, with --verify-data', mode: 'repokey', options: ['--verify-data'], findingBeyondBorg: true, harm: copies => copies.flip(copies.dump('first')._meta.items[1]!) },
  { name: 'the manifest is gone', mode: 'repokey', harm: copies => copies.delete(manifest) },
  { name: 'the manifest does not open', mode: 'repokey-blake2', harm: copies => copies.flip(manifest) },
]

for (const { name, mode, options = [], harm, beyondBorg, findingBeyondBorg } of damages) {
  run(`${name} (${mode})`, t => {
    const copies = new Copies('damage', mode)
    try {
      harm(copies)
      copies.split()
      const found = copies.both(['check', ...options, 'repo'])
      t.is(found.borgfs.rc, name === 'no damage' ? 0 : 1, found.borgfs.stderr)
      t.notRegex(found.borgfs.stderr, /\n\s+at /)
      if (beyondBorg || findingBeyondBorg) t.is(found.borg.rc, 2)
      else {
        t.is(found.borgfs.rc, found.borg.rc)
        t.deepEqual(said(found.borgfs), said(found.borg))
      }
      const planned = copies.borgfs('borgfs', ['check', '--repair', '--dry-run', ...options, 'repo'])
      t.is(planned.rc, found.borgfs.rc)
      t.regex(planned.stderr, /With --repair: /)
      copies.sandbox.sh(`diff -r ${copies.sandbox.path('repo')} of-borgfs/repo`)

      const repaired = copies.both(['check', '-v', '--repair', ...options, 'repo'])
      t.is(repaired.borgfs.rc, 0, repaired.borgfs.stderr)
      if (!beyondBorg) {
        t.is(repaired.borg.rc, 0, repaired.borg.stderr)
        copies.sameContents(t)
        const ours = copies.borgfs('borg', ['check', '--verify-data', 'repo'])
        t.is(ours.rc, 0, ours.stderr)
      } else {
        const left = copies.contents('borgfs')
        t.true(/^first: 0$/m.test(left) && /^second: 2$/m.test(left))
        t.true(left.split('\n').filter(line => line.includes(' source/many/')).length > 5)
      }
      for (const checked of [copies.borg('borgfs', ['check', '--verify-data', 'repo']), copies.borgfs('borgfs', ['check', '--verify-data', 'repo'])]) {
        t.is(checked.rc, 0, checked.stderr)
        t.is(checked.stderr, '')
      }
    } finally {
      copies.close()
    }
  })
}

run('a segment that is cut short or has a flipped byte is repaired to the same as by Borg', t => {
  for (const harm of ['truncate', 'flip']) {
    const copies = new Copies('segment', 'repokey')
    try {
      const segment = copies.sandbox.path(copies.largestSegment())
      if (harm === 'truncate') truncateSync(segment, Math.floor(readFileSync(segment).length * 0.6))
      else {
        const bytes = readFileSync(segment)
        bytes[Math.floor(bytes.length / 3)]! ^= 16
        writeFileSync(segment, bytes)
      }
      copies.split()
      const found = copies.both(['check', 'repo'])
      t.is(found.borgfs.rc, 1)
      t.is(found.borgfs.rc, found.borg.rc)
      t.deepEqual(said(found.borgfs), said(found.borg))
      const planned = copies.borgfs('borgfs', ['check', '--repair', '--dry-run', 'repo'])
      t.is(planned.rc, 1)
      const repaired = copies.both(['check', '--repair', 'repo'])
      t.is(repaired.borgfs.rc, 0, repaired.borgfs.stderr)
      t.deepEqual(said(repaired.borgfs), said(repaired.borg))
      copies.sameContents(t)
      for (const checked of [copies.borg('borgfs', ['check', '--verify-data', 'repo']), copies.borgfs('borg', ['check', '--verify-data', 'repo'])]) t.is(checked.rc, 0, checked.stderr)
    } finally {
      copies.close()
    }
  }
})

run('a file whose chunk comes back is healed, whichever program put the zeros there', t => {
  const copies = new Copies('heal', 'repokey')
  try {
    const id = copies.chunksOf('first', 'big')[1]!
    const object = copies.get(id)
    copies.delete(id)
    copies.split()
    copies.both(['check', '--repair', 'repo'])
    t.regex(copies.contents('borgfs'), /source\/big 200000 broken/)
    for (const which of ['borg', 'borgfs'] as const) {
      const again = which === 'borg' ? copies.borgfs(which, ['check', '-v', 'repo']) : copies.borg(which, ['check', '-v', 'repo'])
      t.is(again.rc, 0, again.stderr)
      t.regex(again.stderr, /first: source\/big: Previously missing file chunk is still missing \(Byte \d+-\d+, Chunk [0-9a-f]{64}\)\. It has an all-zero replacement chunk already\./)
      writeFileSync(copies.sandbox.path(`of-${which}`, 'object'), object)
      copies.borg(which, ['debug', 'put-obj', 'repo', id, 'object'])
      // The other program heals it.
      const healed = which === 'borg' ? copies.borgfs(which, ['check', '-v', '--repair', 'repo']) : copies.borg(which, ['check', '-v', '--repair', 'repo'])
      t.is(healed.rc, 0, healed.stderr)
      t.regex(healed.stderr, /second: source\/big: Completely healed previously damaged file!/)
    }
    for (const which of ['borg', 'borgfs'] as const) {
      t.notRegex(copies.contents(which), /broken/)
      copies.sandbox.mkdir(`of-${which}/out`)
      t.is(copies.sandbox.borgfs(['extract', '../repo::second'], { cwd: copies.sandbox.path(`of-${which}/out`), env: { BORG_BASE_DIR: copies.sandbox.path(`of-${which}/home`) } }).rc, 0)
      copies.sandbox.sh(`diff -r -x many source of-${which}/out/source`)
      t.is(copies.borg(which, ['check', '--verify-data', 'repo']).rc, 0)
      t.is(copies.borgfs(which, ['check', '--verify-data', 'repo']).rc, 0)
    }
  } finally {
    copies.close()
  }
})

run('options, questions and contradictions are answered as by Borg', t => {
  const copies = new Copies('options', 'none')
  try {
    copies.split()
    const cases: readonly (readonly string[])[] = [
      ['check', '-v', 'repo::first'], ['check', '-v', 'repo::missing'], ['check', '-v', '-a', 'f*', 'repo'], ['check', '-v', '-a', 'z*', 'repo'], ['check', '-v', '-P', 'sec', 'repo'],
      ['check', '--first', '5', 'repo'], ['check', '-v', '--last', '1', 'repo'], ['check', '-v', '--sort-by', 'name', 'repo'], ['check', '-v', '--archives-only', '--verify-data', 'repo'],
      ['check', '-v', '--repository-only', 'repo'], ['check', '--repository-only', '--verify-data', 'repo'], ['check', '--repository-only', '--last', '1', 'repo'],
      ['check', '--max-duration', '5', 'repo'], ['check', '--repository-only', '-v', '--max-duration', '5', 'repo'], ['check', '--repair', '--max-duration', '5', 'repo'],
      ['check', '-v', '--repair', '--save-space', 'repo'], ['check', '-v', '--repair', '-a', 'f*', 'repo'], ['check', 'nowhere'],
    ]
    for (const args of cases) {
      const { borg, borgfs } = copies.both(args)
      t.is(borgfs.rc, borg.rc, args.join(' '))
      t.deepEqual(said(borgfs), said(borg), args.join(' '))
    }
    for (const answer of ['NO', 'yes', '', 'YES']) {
      const env = { BORG_CHECK_I_KNOW_WHAT_I_AM_DOING: answer }
      const args = ['check', '--repair', '--log-json', 'repo']
      const [borg, borgfs] = [copies.sandbox.borg(args, { env, ok: 'any' }), copies.sandbox.borgfs(args, { env, ok: 'any' })]
      t.is(borgfs.rc, borg.rc)
      const types = (ran: Ran): unknown[] => ran.stderr.split('\n').filter(Boolean).map(line => ({ ...(JSON.parse(line) as object), time: 0 }))
      t.deepEqual(types(borgfs), types(borg))
    }
    const lines = (ran: Ran): unknown[] => ran.stderr.split('\n').filter(Boolean).map(line => ({ ...(JSON.parse(line) as object), time: 0 })).filter(line => (line as { msgid?: string }).msgid !== 'repository.check')
    const progress = copies.both(['check', '--progress', '--log-json', '--info', 'repo'])
    t.deepEqual(lines(progress.borgfs), lines(progress.borg))
    t.is(copies.borgfs('borgfs', ['check', '--dry-run', 'repo']).rc, 2)
  } finally {
    copies.close()
  }
})
