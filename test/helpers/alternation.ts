/**
 * One repository that borg and borgfs work on in turn, at random from a seed, and a model of what each archive in it must
 * contain. Every operation is told to one of the two; then both check the repository, list it, and extract every archive.
 */
import { execFile } from 'node:child_process'
import { mkdirSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { audit } from './audit.js'
import { BorgServer, type TreeEntry } from './borg-server.js'
import { Random } from './random.js'
import { borgfsProgram, isRoot, type Ran, type Sandbox } from './sandbox.js'

export const encryptionModes = ['none', 'authenticated', 'authenticated-blake2', 'repokey', 'repokey-blake2', 'keyfile', 'keyfile-blake2'] as const
export type EncryptionMode = (typeof encryptionModes)[number]

type Tool = 'borg' | 'borgfs'
const tools: readonly Tool[] = ['borg', 'borgfs']
const otherTool = (tool: Tool): Tool => (tool === 'borg' ? 'borgfs' : 'borg')

/** What an archive must give when it is extracted. */
interface Expected {
  readonly entries: readonly TreeEntry[]
  /** Contents from a pipe: their times and owners are of no interest. */
  readonly contentsOnly?: boolean
  /** A checkpoint, whose contents are part files. */
  readonly parts?: boolean
}

const chunkers = ['default', '10,16,12,63', '12,18,14,1023', '10,14,11,255', 'fixed,4096', 'fixed,16384,512', 'fixed,65536']
const compressions = ['none', 'lz4', 'zstd,1', 'zlib,3', 'lzma,0', 'auto,zstd,1', 'obfuscate,110,lz4']
const filesCacheModes = ['ctime,size,inode', 'mtime,size', 'ctime,size', 'mtime,size,inode', 'disabled', 'rechunk,ctime']
const soundCheck = /Archive consistency check complete, no problems found/

export interface AlternationOptions {
  /** One cache, security folder and key folder for both tools, or one for each. */
  readonly sharedHome: boolean
  /** Told each line of the log at once. */
  readonly follow?: (line: string) => void
}

export class Alternation {
  readonly #sandbox: Sandbox
  readonly #mode: EncryptionMode
  readonly #sharedHome: boolean
  readonly #random: Random
  readonly #seed: number
  readonly #follow: ((line: string) => void) | undefined
  readonly #borg = new BorgServer()
  readonly #archives = new Map<string, Expected>()
  /** By tool; the same for both unless each has a key file of its own. */
  readonly #passphrases: Record<Tool, string> = { borg: 'first passphrase', borgfs: 'first passphrase' }
  readonly #reusedByBorg = new Set<string>()
  /** By name: what the engine read of each archive after the last operation. */
  #digests: ReadonlyMap<string, string> = new Map()
  readonly #counts = new Map<string, number>()
  readonly log: string[] = []
  #repository = 'repo'
  #serial = 0
  #day = 0

  constructor(sandbox: Sandbox, mode: EncryptionMode, seed: number, options: AlternationOptions) {
    this.#follow = options.follow
    this.#sandbox = sandbox
    this.#mode = mode
    this.#seed = seed
    this.#random = new Random(seed)
    this.#sharedHome = options.sharedHome
    this.#note(`# mode ${mode}, seed ${seed}, ${options.sharedHome ? 'one home' : 'two homes'}`)
  }

  /** How often each operation was done. */
  get counts(): ReadonlyMap<string, number> {
    return this.#counts
  }

  /** Throws with the log of all operations if anything is not as it must be. */
  async run(steps: number): Promise<void> {
    try {
      await this.#begin()
      for (let step = 1; step <= steps; step++) {
        const name = this.#choose()
        this.#note(`# ${step}: ${name}`)
        const tool = this.#random.pick(tools)
        await this.#operations[name]!(tool)
        this.#counts.set(name, (this.#counts.get(name) ?? 0) + 1)
        await this.#verify({ data: step % 10 === 0 || step === steps, all: step % 5 === 0 || step === steps, by: tool })
      }
    } catch (error) {
      const told = new Error(`${(error as Error).message}\n\nseed ${this.#seed}, mode ${this.#mode}; the operations were:\n${this.log.join('\n')}`)
      told.stack = `${told.message}\n${(error as Error).stack ?? ''}`
      throw told
    }
  }

  close(): void {
    this.#borg.close()
  }

  async #begin(): Promise<void> {
    const tool = this.#random.pick(tools)
    for (const each of tools) mkdirSync(this.#home(each), { recursive: true })
    mkdirSync(this.#sandbox.path('tree'))
    await this.#run(tool, ['init', '-e', this.#mode, this.#repository])
    if (!this.#sharedHome && this.#mode.startsWith('keyfile')) {
      this.#sandbox.sh(`mkdir -p ${this.#home(otherTool(tool))}/.config/borg; cp -a ${this.#home(tool)}/.config/borg/keys ${this.#home(otherTool(tool))}/.config/borg/`)
    }
    // Small, so that a transaction has several segments in several folders.
    await this.#run(tool, ['config', this.#repository, 'max_segment_size', '150000'])
    await this.#run(tool, ['config', this.#repository, 'segments_per_dir', '7'])
    await this.#mutate(25)
  }

  #choose(): string {
    const count = this.#archives.size
    const weights: Record<string, number> = {
      create: count < 2 ? 30 : count < 6 ? 14 : 4, pipe: 2, checkpoint: 1, failing: 1, delete: count > 5 ? 14 : 5, deleteSome: 2, prune: count > 4 ? 10 : 4, compact: 9, rename: 5,
      recreate: 8, recreateAll: 2, check: 4, repair: 3, passphrase: this.#mode === 'none' ? 0 : 3, loseCache: 2, loseIndex: 2, move: 1, look: 2, drive: isRoot ? 2 : 0,
    }
    // Recreating drops part files, which are all there is in a checkpoint.
    if ([...this.#archives.values()].some(({ parts }) => parts)) weights.recreateAll = 0
    if (!this.#whole().length) weights.recreate = 0
    if (!count) for (const name of ['delete', 'deleteSome', 'rename', 'recreateAll', 'prune']) weights[name] = 0
    let at = this.#random.below(Object.values(weights).reduce((sum, weight) => sum + weight))
    return Object.entries(weights).find(([, weight]) => (at -= weight) < 0)![0]
  }

  readonly #operations: Record<string, (tool: Tool) => Promise<void>> = {
    create: async tool => {
      await this.#mutate(this.#random.below(12))
      const name = this.#newName()
      const excluded = this.#random.below(5) === 0 ? this.#somePath(await this.#source()) : undefined
      const withoutXattrs = this.#random.below(8) === 0
      await this.#run(tool, [
        'create', ...this.#storing(), ...this.#timestamp(), '--files-cache', this.#random.pick(filesCacheModes), ...this.#perhaps('--comment', `of step ${this.log.length}`),
        ...(excluded === undefined ? [] : ['-e', `pp:${excluded}`]), ...(withoutXattrs ? ['--noxattrs'] : []), ...this.#perhaps('--sparse'), ...this.#perhaps('-s'), this.#archive(name), 'tree',
      ])
      const entries = without(await this.#source(), excluded)
      this.#archives.set(name, { entries: withoutXattrs ? entries.map(entry => ({ ...entry, xattrs: [] })) : entries })
    },
    pipe: async tool => {
      const name = this.#newName()
      const file = this.#sandbox.path('piped')
      writeFileSync(file, this.#random.bytes(this.#random.below(200_000)))
      await this.#run(tool, ['create', ...this.#storing(), ...this.#timestamp(), '--content-from-command', '--stdin-name', 'from/pipe', this.#archive(name), '--', 'cat', file])
      this.#archives.set(name, { entries: await this.#piped(file), contentsOnly: true })
    },
    checkpoint: async tool => {
      const name = this.#newName()
      await this.#slowCreate(tool, name, 0)
      this.#archives.set(name, { entries: await this.#piped(this.#sandbox.path('piped')), contentsOnly: true })
    },
    failing: async tool => {
      const name = this.#newName()
      await this.#slowCreate(tool, name, 3)
      await this.#expectParts(`${name}.checkpoint`)
    },
    delete: async tool => {
      const names = this.#someArchives(this.#random.below(4) === 0 ? 2 : 1)
      await this.#run(tool, ['delete', ...this.#perhaps('-s'), ...(names.length === 1 ? [this.#archive(names[0]!)] : [this.#repository, ...names])])
      for (const name of names) this.#archives.delete(name)
    },
    deleteSome: async tool => {
      await this.#predicted(tool, ['delete'], this.#random.pick([['-a', `*${this.#random.below(10)}`], ['--first', '1'], ['--last', '1'], ['-a', '*.checkpoint*']]), /^Would delete archive: (\S+) /)
    },
    prune: async tool => {
      const rules = this.#random.pick([['--keep-last', '2'], ['-d', '3'], ['-w', '1', '-m', '1'], ['-d', '2', '-y', '-1'], ['--keep-within', '3d', '-H', '2'], ['-d', '2', '-a', `*${this.#random.below(10)}`]])
      await this.#predicted(tool, ['prune'], rules, /^Would prune: +(\S+) /)
    },
    compact: async tool => {
      await this.#run(tool, ['compact', ...this.#perhaps('--threshold', String(this.#random.pick([0, 1, 20, 50]))), ...this.#perhaps('--cleanup-commits'), this.#repository])
    },
    rename: async tool => {
      const [name] = this.#someArchives(1)
      const fresh = this.#newName()
      await this.#run(tool, ['rename', this.#archive(name!), fresh])
      this.#archives.set(fresh, this.#archives.get(name!)!)
      this.#archives.delete(name!)
    },
    recreate: async tool => {
      const name = this.#random.pick(this.#whole())
      const expected = this.#archives.get(name)!
      const target = this.#random.below(3) === 0 ? this.#newName() : undefined
      const excluded = this.#random.below(2) === 0 && !expected.contentsOnly ? this.#somePath(expected.entries) : undefined
      await this.#run(tool, ['recreate', ...this.#recreating(), ...(excluded === undefined ? [] : ['-e', `pp:${excluded}`]), ...(target === undefined ? [] : ['--target', target]), this.#archive(name)])
      this.#archives.set(target ?? name, { ...expected, entries: without(expected.entries, excluded) })
    },
    recreateAll: async tool => {
      await this.#run(tool, ['recreate', ...this.#recreating(), this.#repository])
    },
    check: async tool => {
      await this.#run(tool, ['check', '-v', this.#random.pick(['--repository-only', '--archives-only', '--verify-data', '--max-duration=100 --repository-only', '--last=2 --archives-only']).split(' '), this.#repository].flat())
    },
    repair: async tool => {
      await this.#run(tool, ['check', '-v', '--repair', ...this.#perhaps('--verify-data'), this.#repository])
    },
    passphrase: async tool => {
      const next = `passphrase ${this.#random.below(1e6)} \u00fc`
      await this.#run(tool, ['key', 'change-passphrase', this.#repository], { env: { BORG_NEW_PASSPHRASE: next } })
      const both = this.#sharedHome || !this.#mode.startsWith('keyfile')
      for (const each of tools) if (both || each === tool) this.#passphrases[each] = next
    },
    loseCache: async tool => {
      // Borg ends with a traceback if its chunks index or its cache's config is missing alone.
      const pieces = ['', '/files*', '/chunks.archive.d', ...(tool === 'borgfs' && !this.#sharedHome ? ['/chunks', '/config'] : [])]
      if (this.#random.below(2) === 0) await this.#run(tool, ['delete', '--cache-only', this.#repository])
      else this.#shell(`rm -rf ${this.#home(tool)}/.cache/borg/*${this.#random.pick(pieces)}`)
    },
    loseIndex: async () => {
      this.#shell(`rm -f ${this.#repository}/${this.#random.pick(['index.*', 'hints.*', 'integrity.*', '{index,hints,integrity}.*'])}`)
    },
    move: async tool => {
      const place = this.#repository === 'repo' ? 'moved' : 'repo'
      this.#note(`mv ${this.#repository} ${place}`)
      renameSync(this.#sandbox.path(this.#repository), this.#sandbox.path(place))
      this.#repository = place
      await this.#run(tool, ['break-lock', place])
    },
    look: async tool => {
      await this.#run(tool, ['info', this.#repository])
      await this.#run(otherTool(tool), ['with-lock', this.#repository, 'true'])
    },
    drive: async () => {
      await this.#mutate(this.#random.below(6))
      const name = this.#newName()
      const env = this.#env('borgfs')
      this.#note(`borgfs mount ${this.#repository}; cp -a tree/. mnt/incoming/x; mv mnt/incoming/x mnt/${name}`)
      this.#sandbox.mount(this.#repository, { env })
      this.#sandbox.sh(`cp -a tree/. mnt/incoming/x; mv mnt/incoming/x mnt/${name}`)
      this.#sandbox.unmount(this.#sandbox.path('mnt'), { env })
      this.#archives.set(name, { entries: await this.#borg.contents(this.#sandbox.path('tree')) })
    },
  }

  /** Deletes what the other tool says would be deleted, by name in its list. */
  async #predicted(tool: Tool, command: readonly string[], selection: readonly string[], line: RegExp): Promise<void> {
    const { stderr } = await this.#run(otherTool(tool), [...command, '--dry-run', '--list', ...selection, this.#repository])
    const names = stderr.split('\n').flatMap(text => line.exec(text)?.[1] ?? [])
    this.#note(`# expected to go: ${names.join(' ')}`)
    await this.#run(tool, [...command, ...this.#perhaps('-s'), ...selection, this.#repository])
    for (const name of names) if (!this.#archives.delete(name)) throw new Error(`${name} was to be deleted, but there is no such archive`)
  }

  /** A create of what a command gives piece by piece until there was a checkpoint, and of one piece more; all of it is in `piped` then. */
  async #slowCreate(tool: Tool, name: string, rc: 0 | 3): Promise<void> {
    const [store, piped] = [this.#sandbox.path('store'), this.#sandbox.path('piped')]
    writeFileSync(store, this.#random.bytes(200_000))
    writeFileSync(piped, '')
    const giving = `
      last() { ls ${this.#sandbox.path(this.#repository)} | sed -n 's/^index\\.//p' | sort -n | tail -n 1; }
      give() { tail -c +$((count % 50 * 3777 + 1)) ${store} | head -c 20000 | tee -a ${piped}; count=$((count + 1)); }
      count=0; before=$(last)
      until [ "$(last)" -gt "$before" ] || [ $count -ge 300 ]; do give; sleep 0.2; done
      give; exit ${rc}`
    writeFileSync(this.#sandbox.path('give'), giving)
    await this.#run(tool, ['create', '-c', '1', '--chunker-params', 'fixed,20000', '--content-from-command', '--stdin-name', 'from/pipe', this.#archive(name), '--', 'sh', this.#sandbox.path('give')], { ok: rc ? [2] : [0] })
  }

  /** What is in the checkpoint is what the command had written by then, in both tools' eyes. */
  async #expectParts(name: string): Promise<void> {
    this.#archives.set(name, { entries: [], parts: true })
    const found = await Promise.all(tools.map(tool => this.#extract(tool, name)))
    const { stdout } = this.#sandbox.sh(`cat ${this.#out('borg', name)}/from/pipe.borg_part_* > parts; cmp -n $(stat -c %s parts) parts piped; stat -c %s parts`)
    if (Number(stdout) < 20_000) throw new Error(`the checkpoint has ${stdout.trim()} bytes`)
    const expected: Expected = { entries: found[0]!, contentsOnly: true, parts: true }
    const difference = differenceOf(expected, found[1]!)
    if (difference) throw new Error(`the tools extract different checkpoints: ${difference}`)
    this.#archives.set(name, expected)
  }

  async #verify(how: { readonly data: boolean; readonly all: boolean; readonly by: Tool }): Promise<void> {
    const names = [...this.#archives.keys()].sort()
    const known = new Map(this.#digests)
    for (const tool of this.#sharedHome ? tools.slice(0, 1) : tools) {
      const { archives, problems, reusedNonces } = await audit(this.#sandbox.path(this.#repository), this.#sandbox.env(this.#env(tool)), this.#sandbox.path('replayed'), this.#reusedByBorg)
      // Borg's cipher goes on counting from whatever it decrypted last, so that its recreate --recompress uses nonces twice. That is Borg's fault; borgfs must not.
      const excused = how.by === 'borg' ? problems.filter(problem => !problem.startsWith('nonces are used twice')) : problems
      if (excused.length) throw new Error(`looked at from ${tool}'s home:\n${excused.slice(0, 20).join('\n')}`)
      for (const pair of reusedNonces) this.#reusedByBorg.add(pair)
      this.#digests = archives
      if ([...archives.keys()].sort().join() !== names.join()) throw new Error(`there are the archives ${[...archives.keys()].join(' ')}; expected ${names.join(' ')}`)
    }
    // Starts of programs cost most: names are listed by both, and what the audit read just now as it was when both extracted it last is extracted again, every fifth time.
    const unchanged = (name: string): boolean => !how.all && known.get(name) !== undefined && known.get(name) === this.#digests.get(name)
    await Promise.all(tools.map(async tool => {
      const listed = how.all ? (await this.#run(tool, ['list', '--short', '--consider-checkpoints', '--lock-wait', '60', this.#repository], { quiet: true })).stdout.split('\n').filter(Boolean).sort() : names
      if (listed.join() !== names.join()) throw new Error(`${tool} lists ${listed.join(' ')}; expected ${names.join(' ')}`)
      for (const name of names) {
        if (unchanged(name)) continue
        const difference = differenceOf(this.#archives.get(name)!, await this.#extract(tool, name))
        if (difference) throw new Error(`${tool} extracts something else from ${name}:\n${difference}`)
      }
    }))
    for (const tool of tools) {
      const { stdout, stderr } = await this.#run(tool, ['check', '-v', ...(how.data ? ['--verify-data'] : []), this.#repository], { quiet: true })
      if (!soundCheck.test(stderr) || stdout !== '') throw new Error(`${tool} check:\n${stdout}${stderr}`)
    }
    if (!how.data) return
    // Caches that were brought up to date independently must count alike.
    const totals = await Promise.all(tools.map(async tool => {
      const { cache } = JSON.parse((await this.#run(tool, ['info', '--json', '--lock-wait', '60', this.#repository], { quiet: true })).stdout) as { cache: { stats: object } }
      // Where one chunk was stored in two sizes, it depends on the order of reading which one is counted once.
      return JSON.stringify({ ...cache.stats, unique_csize: undefined })
    }))
    if (totals[0] !== totals[1]) throw new Error(`borg counts ${totals[0]}, borgfs ${totals[1]}`)
  }

  /** What comes out, as a list. */
  async #extract(tool: Tool, name: string): Promise<TreeEntry[]> {
    const out = this.#out(tool, name)
    rmSync(out, { recursive: true, force: true })
    mkdirSync(out, { recursive: true })
    const parts = this.#archives.get(name)?.parts ? ['--consider-part-files'] : []
    await this.#run(tool, ['extract', '--lock-wait', '60', ...parts, `../../${this.#archive(name)}`], { quiet: true, cwd: out })
    const found = await this.#borg.contents(out)
    if (!parts.length) rmSync(out, { recursive: true, force: true })
    return found
  }

  #out(tool: Tool, name: string): string {
    return this.#sandbox.path(`out-${tool}`, name)
  }

  async #source(): Promise<TreeEntry[]> {
    return (await this.#borg.contents(this.#sandbox.folder)).filter(({ path }) => path === 'tree' || path.startsWith('tree/'))
  }

  async #piped(file: string): Promise<TreeEntry[]> {
    const name = file.slice(this.#sandbox.folder.length + 1)
    const [entry] = (await this.#borg.contents(this.#sandbox.folder)).filter(({ path }) => path === name)
    return [{ ...entry!, path: 'from', kind: 'directory' }, { ...entry!, path: 'from/pipe' }]
  }

  async #mutate(count: number): Promise<void> {
    if (count) await this.#borg.mutate(this.#sandbox.path('tree'), (this.#seed % 10_000) * 100 + ++this.#serial % 100, count)
  }

  /** `args` as a command of the tool. An exit code that is not expected is an error that shows what was said. */
  async #run(tool: Tool, args: readonly string[], options: { readonly ok?: readonly number[]; readonly quiet?: boolean; readonly cwd?: string; readonly env?: Record<string, string> } = {}): Promise<Ran> {
    const said = `${tool} ${args.map(word => (/^[\w:,./=*-]+$/.test(word) ? word : `'${word}'`)).join(' ')}`
    if (!options.quiet) this.#note(said)
    const where = { cwd: options.cwd ?? this.#sandbox.folder, env: this.#sandbox.env({ ...this.#env(tool), ...options.env }) }
    const ran = tool === 'borg' ? await this.#borg.run(args, where) : await runBorgfs(args, where)
    if (!(options.ok ?? [0]).includes(ran.rc)) throw new Error(`${said}: exit code ${ran.rc}\n${ran.stdout.slice(-2000)}\n${ran.stderr.slice(-4000)}`)
    return ran
  }

  #note(line: string): void {
    this.log.push(line)
    this.#follow?.(line)
  }

  #shell(script: string): void {
    this.#note(script)
    this.#sandbox.sh(script)
  }

  #home(tool: Tool): string {
    return this.#sandbox.path(this.#sharedHome ? 'home' : `home-${tool}`)
  }

  #env(tool: Tool): Record<string, string> {
    return { BORG_BASE_DIR: this.#home(tool), BORG_PASSPHRASE: this.#passphrases[tool], BORG_CHECK_I_KNOW_WHAT_I_AM_DOING: 'YES', BORG_SELFTEST: 'disabled' }
  }

  #archive(name: string): string {
    return `${this.#repository}::${name}`
  }

  #newName(): string {
    return `a${this.log.length}-${this.#random.below(100)}`
  }

  /** Archives that are no checkpoints. */
  #whole(): string[] {
    return [...this.#archives].filter(([, { parts }]) => !parts).map(([name]) => name)
  }

  #someArchives(count: number): string[] {
    const names = [...this.#archives.keys()]
    return Array.from({ length: Math.min(count, names.length) }, () => names.splice(this.#random.below(names.length), 1)[0]!)
  }

  /** A path in `entries` that can be named on a command line; perhaps a folder. */
  #somePath(entries: readonly TreeEntry[]): string | undefined {
    const usable = entries.map(({ path }) => path).filter(path => path !== 'tree' && /^[\x20-\x7e]+$/.test(path))
    return usable.length ? this.#random.pick(usable) : undefined
  }

  #perhaps(...words: string[]): string[] {
    return this.#random.below(3) === 0 ? words : []
  }

  #storing(): string[] {
    return ['-C', this.#random.pick(compressions), '--chunker-params', this.#random.pick(chunkers)]
  }

  /** Always something to do: a time alone is none, and neither is a cutting that an archive has already. */
  #recreating(): string[] {
    const chosen = [...this.#perhaps('--chunker-params', this.#random.pick(chunkers)), ...(this.#random.below(4) === 0 ? this.#timestamp() : []), ...this.#perhaps('--recompress', this.#random.pick(['always', 'if-different']), '-C', this.#random.pick(compressions))]
    return [...chosen, ...(chosen.includes('--recompress') ? [] : ['--comment', `recreated at ${this.log.length}`])]
  }

  /** Each later than the ones before, mostly by less than two days. */
  #timestamp(): string[] {
    this.#day += this.#random.below(2000) / 1000
    return ['--timestamp', new Date(Date.UTC(2020, 0, 1) + Math.floor(this.#day * 86_400_000)).toISOString().slice(0, 19)]
  }
}

function runBorgfs(args: readonly string[], options: { readonly cwd: string; readonly env: NodeJS.ProcessEnv }): Promise<Ran> {
  return new Promise(resolve => {
    const child = execFile(process.execPath, [borgfsProgram, ...args], { ...options, maxBuffer: 1 << 28, timeout: 300_000 }, (error, stdout, stderr) => {
      resolve({ rc: error ? (typeof error.code === 'number' ? error.code : 128) : 0, stdout, stderr })
    })
    child.stdin!.end()
  })
}

/** What is left when `excluded` and all below it was left out. */
function without(entries: readonly TreeEntry[], excluded: string | undefined): readonly TreeEntry[] {
  return excluded === undefined ? entries : entries.filter(({ path }) => path !== excluded && !path.startsWith(`${excluded}/`))
}

/** One line per object, with hard links told by the first name. */
function lines({ entries, contentsOnly }: Expected): string[] {
  const first = new Map<number, string>()
  for (const { inode, path, kind } of entries) if (kind !== 'directory' && !first.has(inode)) first.set(inode, path)
  return entries.map(entry => {
    const { path, kind, inode, size, content, ...facts } = entry
    if (contentsOnly) return JSON.stringify(kind === 'directory' ? { path, kind } : { path, kind, size, content })
    return JSON.stringify({ path, kind, size, content, ...facts, link: kind === 'directory' ? path : first.get(inode) })
  })
}

/** Empty when `found` is as expected. */
function differenceOf(expected: Expected, found: readonly TreeEntry[]): string {
  const [a, b] = [lines(expected), lines({ ...expected, entries: found })]
  const [inA, inB] = [new Set(a), new Set(b)]
  return [...a.filter(line => !inB.has(line)).map(line => `- ${line}`), ...b.filter(line => !inA.has(line)).map(line => `+ ${line}`)].join('\n')
}
