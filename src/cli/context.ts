/** What a command is given: its options, the log, and repositories opened under the lock that it asks for. */
import { resolve } from 'node:path'
import { type Location, canonical, parseLocation } from '../engine/location.js'
import { BorgError } from '../engine/errors.js'
import { idHex } from '../engine/ids.js'
import type { OpenedRepository } from '../engine/operations/open.js'
import { type ArchiveInfo, byTime, isCheckpointName, type OperationClass } from '../engine/archive/manifest.js'
import { expandPlaceholders } from '../engine/placeholders.js'
import { placesOf, type Places } from '../engine/platform/places.js'
import type { ClientCache } from '../engine/cache/client-cache.js'
import type { Codec } from '../engine/codec/codec.js'
import type { Derivation } from '../engine/crypto/derivation.js'
import type { Passphrases } from '../engine/crypto/passphrase.js'
import type { RepositoryConfig } from '../engine/repository/config.js'
import type { LocalRepository } from '../engine/repository/local-repository.js'
import type { Workers } from '../engine/store/workers.js'
import { byteString, bytesOf, escapedBytes, escapedText } from '../engine/text.js'
import type { FuseThread } from '../fs/fuse-thread.js'
import { type ParsedArgs, UsageError } from './args.js'
import { ExitStatus, warningCode } from './exit.js'
import { StderrLog } from './output/log.js'
import { cacheSteps } from './output/progress.js'
import { TerminalPrompt } from './prompt.js'
import type { Signals } from './signals.js'

interface Unlocking {
  readonly passphrases: Passphrases
  begin(config: RepositoryConfig): Derivation
}

export class CommandContext {
  readonly args: ParsedArgs
  /** `borg` or `borgfs`, as called. */
  readonly program: string
  /** All words of the command line, as started. */
  readonly argv: readonly string[]
  readonly env: NodeJS.ProcessEnv
  readonly log: StderrLog
  readonly exit: ExitStatus
  readonly prompt: TerminalPrompt
  readonly places: Places
  /** Aborted by the first SIGINT, SIGTERM or SIGHUP; the reason is a SignalError. */
  readonly signal: AbortSignal
  readonly signals: Signals
  /** Started beforehand, for a mount. */
  readonly fuseThread: FuseThread | undefined
  readonly #closing: (() => Promise<void> | void)[] = []

  constructor(options: { args: ParsedArgs; program: string; argv: readonly string[]; env: NodeJS.ProcessEnv; log: StderrLog; signals: Signals; fuseThread?: FuseThread | undefined }) {
    this.args = options.args
    this.program = options.program
    this.argv = options.argv
    this.env = options.env
    this.log = options.log
    this.signals = options.signals
    this.fuseThread = options.fuseThread
    this.signal = options.signals.first
    this.exit = new ExitStatus(options.env)
    this.prompt = new TerminalPrompt(options.log, options.env, this.signal)
    this.places = placesOf(options.env)
  }

  // --- options ---

  flag(name: string): boolean {
    return this.args.values[name] === true
  }

  text(name: string): string | undefined {
    const value = this.args.values[name]
    return value === undefined ? undefined : String(value)
  }

  number(name: string): number | undefined {
    const value = this.args.values[name]
    return value === undefined ? undefined : Number(value)
  }

  /** Of an octal option that has a default: `0077`, `0o77`. */
  octal(name: string): number {
    return parseInt(this.text(name)!.replace(/^0o/, ''), 8)
  }

  /** The value of an option that has one, understood; what is wrong with it is told as of a wrong word. */
  parsed<T>(name: string, parse: (text: string) => T): T {
    try {
      return parse(this.text(name)!)
    } catch (error) {
      if (!(error instanceof BorgError)) throw error
      const flags = this.args.spec.options?.find(({ flags }) => flags.includes(`--${name}`))?.flags ?? [`--${name}`]
      throw this.usage(`argument ${flags.join('/')}: ${error.message}`)
    }
  }

  list(name: string): readonly string[] {
    return (this.args.values[name] as string[] | undefined) ?? []
  }

  positional(name: string): readonly string[] {
    return this.args.positionals[name] ?? []
  }

  get iec(): boolean {
    return this.flag('iec')
  }

  get lockWaitMs(): number {
    return (this.number('lock-wait') ?? 1) * 1000
  }

  usage(message: string): UsageError {
    return new UsageError(`${this.program} ${this.args.command}`, message)
  }

  /** A message of checks made after parsing: Borg names only the program. */
  complaint(message: string): UsageError {
    return new UsageError(this.program, message)
  }

  /** An operand that names an archive of the command's repository, placeholders expanded. */
  archiveOperand(name: string): string {
    const typed = expandPlaceholders(this.positional(name)[0]!)
    if (typed !== '' && !typed.includes('/') && !typed.includes('::')) return typed
    const metavar = this.args.spec.positionals?.find(positional => positional.name === name)?.metavar ?? name
    throw this.usage(`argument ${metavar}: Invalid archive name: "${typed}"`)
  }

  // --- locations ---

  /** The command's location. `wanted` tells whether an archive must, may or must not be named. */
  location(wanted: 'archive' | 'repository' | 'either', nowMicros?: number): Location {
    const typed = this.positional('location')[0]
    const metavar = this.args.spec.positionals?.find(({ name }) => name === 'location')?.metavar ?? 'REPOSITORY'
    const expand = (text: string): string => expandPlaceholders(text, nowMicros === undefined ? {} : { nowMicros })
    const fallback = this.env.BORG_REPO === undefined ? undefined : expand(this.env.BORG_REPO)
    const expanded = expand(typed ?? '')
    const location = parseLocation(expanded, fallback)
    if (!location) throw this.usage(`argument ${metavar}: Invalid location format: "${expanded}"`)
    if (wanted === 'archive' && location.archive === undefined) throw this.usage(`argument ${metavar}: "${expanded || location.text}": No archive specified`)
    if (wanted === 'repository' && location.archive !== undefined) throw this.usage(`argument ${metavar}: "${expanded}": No archive can be specified`)
    return location
  }

  /** For who has other things to do before `open`: what that would begin with is under way. Errors are for `open` to tell. */
  async beginOpening(location: Location): Promise<void> {
    const [{ findRepository }, unlocking] = await Promise.all([import('../engine/repository/repository-home.js'), this.#unlocking()])
    try {
      unlocking.begin(findRepository(this.localPath(location)).config)
    } catch {
      return
    }
    this.#begun = unlocking
  }
  #begun: Unlocking | undefined

  /** Opens the repository of a location; closed at the end of the command, in reverse order. */
  async open(location: Location, lock: 'shared' | 'exclusive', operation: OperationClass): Promise<OpenedRepository<LocalRepository>> {
    const { passphrases, begin } = this.#begun ?? await this.#unlocking()
    let derivation: Derivation | undefined
    const repository = await this.openLocal(location, lock, config => (derivation = begin(config)))
    return this.unlock(repository, operation, { passphrases, ...(derivation && { derivation }) })
  }

  /** `begin` begins once, and is told about the same repository again. */
  async #unlocking(): Promise<Unlocking> {
    const [{ beginUnlocking }, { Passphrases }] = await Promise.all([import('../engine/operations/open.js'), import('../engine/crypto/passphrase.js')])
    const passphrases = new Passphrases(this.env, this.prompt)
    let derivation: Derivation | undefined
    this.atEnd(() => derivation?.discard())
    return { passphrases, begin: config => (derivation ??= beginUnlocking(config, { places: this.places, passphrases })) }
  }

  async unlock(repository: LocalRepository, operation: OperationClass | undefined, options: { checkSecurity?: boolean; passphrases?: Passphrases; derivation?: Derivation } = {}): Promise<OpenedRepository<LocalRepository>> {
    const [{ openRepository }, { Passphrases }] = await Promise.all([import('../engine/operations/open.js'), import('../engine/crypto/passphrase.js')])
    const passphrases = options.passphrases ?? new Passphrases(this.env, this.prompt)
    const opened = await openRepository(repository, { places: this.places, questions: this.prompt, operation, ...options, passphrases })
    this.atEnd(() => opened.key.wipe())
    return opened
  }

  /** The same without key and manifest. `found` as in the repository's own options. */
  async openLocal(location: Location, lock: 'shared' | 'exclusive' | 'none', found?: (config: RepositoryConfig) => void): Promise<LocalRepository> {
    const { LocalRepository } = await import('../engine/repository/local-repository.js')
    const repository = await LocalRepository.open(this.localPath(location), {
      lock: this.flag('bypass-lock') ? 'none' : lock, lockWaitMs: this.lockWaitMs, log: this.log, ...(found && { found }),
    })
    this.atEnd(() => repository.close())
    return repository
  }

  /** The byte workers and the client cache with its lock, until the end of the command. The chunks index is not loaded yet. */
  async openCache(opened: OpenedRepository<LocalRepository>, codec?: Codec): Promise<{ workers: Workers; cache: ClientCache }> {
    const [{ Workers }, { ClientCache }] = await Promise.all([import('../engine/store/workers.js'), import('../engine/cache/client-cache.js')])
    const workers = new Workers({ key: opened.key, ...(codec ? { codec } : {}) })
    this.atEnd(() => workers.close())
    const cache = await ClientCache.open(opened, { places: this.places, log: this.log, lockWaitMs: this.lockWaitMs, env: this.env, steps: cacheSteps(this) })
    this.atEnd(() => cache.close())
    return { workers, cache }
  }

  localPath(location: Location): string {
    if (location.protocol !== 'file') throw new BorgError('Error', `borgfs cannot use remote repositories yet: ${canonical(location)}. Mount the remote folder (sshfs) or run it on the server.`)
    return resolve(location.path)
  }

  /** Runs when the command ends, however it ends; the last one first. */
  atEnd(step: () => Promise<void> | void): void {
    this.#closing.push(step)
  }

  /** All of them, also when one fails; then the first error is thrown. */
  async close(): Promise<void> {
    const errors: unknown[] = []
    for (let step; (step = this.#closing.pop()); ) {
      try {
        await step()
      } catch (error) {
        errors.push(error)
      }
    }
    if (errors.length > 0) throw errors[0]
  }
}

/** PATHs that nothing in the archive matched. */
export function tellUnmatched({ log, exit }: CommandContext, matcher: import('../engine/patterns/matcher.js').Matcher): void {
  for (const pattern of matcher.unmatched()) {
    log.message('warning', 'borg.archiver', `Include pattern '${pattern}' never matched.`)
    exit.warn(warningCode.includePatternNeverMatched)
  }
}

/** An archive's name as a byte string. */
export function archiveName(text: string): string {
  return byteString(escapedBytes(text))
}

/** Whether the command line says which archives are meant: -a, -P, --first, --last. */
export function choosesArchives(context: CommandContext): boolean {
  return ['first', 'last', 'glob-archives', 'prefix'].some(name => context.text(name) !== undefined)
}

/** -a or -P: true for the names that are meant; without either for all. */
export async function archiveNameFilter(context: CommandContext): Promise<(name: string) => boolean> {
  const glob = context.text('glob-archives'), prefix = context.text('prefix')
  if (glob !== undefined) {
    const { archiveNameMatcher } = await import('../engine/patterns/matcher.js')
    const matches = archiveNameMatcher(expandPlaceholders(glob))
    return name => matches(escapedText(bytesOf(name)))
  }
  if (prefix === undefined) return () => true
  const start = archiveName(expandPlaceholders(prefix))
  return name => name.startsWith(start)
}

/** -a, -P, --sort-by, --first, --last over the archives of a manifest (commands.md §8). */
export async function selectArchives(context: CommandContext, archives: Iterable<ArchiveInfo>, options: { hideCheckpoints: boolean }): Promise<ArchiveInfo[]> {
  const matches = await archiveNameFilter(context)
  let found = [...archives].filter(({ name }) => matches(name))
  if (options.hideCheckpoints && !context.flag('consider-checkpoints')) found = found.filter(({ name }) => !isCheckpointName(name))
  const keys = (context.text('sort-by') ?? 'timestamp').split(',')
  for (const key of keys) if (!['timestamp', 'name', 'archive', 'id'].includes(key)) throw context.usage(`argument --sort-by: invalid SortBySpec value: '${context.text('sort-by')}'`)
  if (keys.length === 1 && keys[0] === 'timestamp') found.sort(byTime)
  else {
    const order: readonly ((info: ArchiveInfo) => string)[] = [...keys, 'name'].map(key => (key === 'timestamp' ? info => info.time : key === 'id' ? info => idHex(info.id) : info => info.name))
    found.sort((a, b) => {
      for (const field of order) {
        const left = field(a), right = field(b)
        if (left !== right) return left < right ? -1 : 1
      }
      return 0
    })
  }
  const [first, last] = [context.number('first'), context.number('last')]
  if (first !== undefined) return found.slice(0, first)
  if (last !== undefined) return found.slice(-last)
  return found
}

/** -e, --exclude-from, --pattern, --patterns-from and PATHs as a matcher; R lines as roots. */
export async function loadMatcher(context: CommandContext, paths: readonly string[]): Promise<{ matcher: import('../engine/patterns/matcher.js').Matcher; roots: string[] }> {
  const [{ Matcher }, { loadPatterns }] = await Promise.all([import('../engine/patterns/matcher.js'), import('../engine/patterns/load.js')])
  const kinds = ['exclude', 'exclude-from', 'pattern', 'patterns-from'] as const
  const options = context.args.ordered.map(({ flag, value }) => ({ kind: kinds.find(kind => kind === flag)!, value }))
  const { rules, roots } = loadPatterns(options)
  return { matcher: new Matcher(rules, context.args.command === 'create' ? [] : [...paths, ...roots]), roots }
}

