/** argv in, exit code out; the only place that ends the process. */
import { readFileSync } from 'node:fs'
import { BorgError, IntegrityError } from '../engine/errors.js'
import { escapedText } from '../engine/text.js'
import { native } from '../engine/native.js'
import { commandName, firstOperand, parseArgs, type ParsedArgs, twoWordCommands, UsageError } from './args.js'
import { commands, ownCommands } from './commands/all.js'
import { CommandContext } from './context.js'
import { releaseHeldLocks } from '../engine/repository/lock.js'
import { SignalError } from './exit.js'
import { commandSpecs } from './options.js'
import { StderrLog, type Threshold } from './output/log.js'
import { BrokenPipe, flushOutput } from './output/stdout.js'
import { Signals, tellListening } from './signals.js'
import type { FuseThread } from '../fs/fuse-thread.js'
import { borgVersion } from '../engine/constants.js'

/** Words of the command line as escaped text: Node's own argv has lost bytes that are not UTF-8. */
function commandWords(): string[] {
  const given = process.argv.slice(2)
  if (!given.some(word => word.includes('\ufffd'))) return given
  try {
    const raw = readFileSync('/proc/self/cmdline').toString('latin1').split('\0').slice(0, -1)
    return raw.slice(raw.length - given.length).map(word => escapedText(Buffer.from(word, 'latin1')))
  } catch {
    return given
  }
}

const deprecated: readonly (readonly [start: string, line: string])[] = [
  ['--noatime', 'Warning: "--noatime" has been deprecated because it is the default now.'],
  ['--nobsdflags', 'Warning: "--nobsdflags" has been deprecated. Use --noflags instead.'],
  ['--numeric-owner', 'Warning: "--numeric-owner" has been deprecated. Use --numeric-ids instead.'],
  ['--remote-ratelimit', 'Warning: "--remote-ratelimit" has been deprecated. Use --upload-ratelimit instead.'],
  ['--remote-buffer', 'Warning: "--remote-buffer" has been deprecated. Use --upload-buffer instead.'],
  ['--prefix', 'Warning: "--prefix" has been deprecated. Use "--glob-archives \'yourprefix*\'" (-a) instead.'],
]

const allowedToBypassLock = new Set(['check', 'config', 'diff', 'export-tar', 'extract', 'info', 'list', 'mount', 'umount'])

export interface MainOptions {
  /** Ends the process. */
  readonly exit?: (code: number) => void
  readonly fuseThread?: FuseThread | undefined
}

/** Called by bin/borgfs.js with the name it was called by. */
export async function main(program: string, { exit = leave, fuseThread }: MainOptions = {}): Promise<void> {
  const log = new StderrLog()
  const words = commandWords()
  const onIdle = (): void => {
    log.message('error', 'borg.archiver', 'Error: the command waits for something that never comes: this is a fault of borgfs. What it was to do is not done.')
    releaseHeldLocks()
    exit(2)
  }
  // Node would end as if all were well.
  process.once('beforeExit', onIdle)
  const code = await run(program, words, log, exit, fuseThread)
  process.off('beforeExit', onIdle)
  try {
    flushOutput()
  } catch {
    // The reader went away: that is no error.
  }
  exit(code)
}

/** bin/borgfs gives it to Node. */
const poolOption = '--v8-pool-size=1'

/**
 * At once: all is written and closed, and what Node does at its end, threads to wait for and a heap to take apart, takes as long as
 * many a command. Who looks on (a profiler, a debugger) has Node's own end.
 */
function leave(code: number): void {
  const { NODE_OPTIONS, NODE_V8_COVERAGE } = process.env
  if (process.execArgv.every(word => word === poolOption) && NODE_OPTIONS === undefined && NODE_V8_COVERAGE === undefined) {
    process.emit('exit', code)
    try {
      native().exitNow(code)
    } catch {
      // Without the addon there is still the usual way.
    }
  }
  process.exit(code)
}

async function run(program: string, words: string[], log: StderrLog, exit: (code: number) => void, fuseThread: FuseThread | undefined): Promise<number> {
  for (const [start, line] of deprecated) if (words.some(word => word.startsWith(start))) log.line(line)
  if (words.length === 0) words = ['help']
  // Debian's borgfs is `borg mount` by another name; ours is both (commands.md §12).
  const first = firstOperand(words)
  if (program === 'borgfs' && first !== undefined && !isCommand(first)) words = ['mount', ...words]
  const called = commandName(words)
  if ((words.includes('-h') || words.includes('--help')) && !words.includes('--')) words = ['help', ...(called !== undefined && isCommand(called) ? [called] : [])]
  if (called !== undefined && twoWordCommands.has(called)) words = ['help', called]
  let args: ParsedArgs
  try {
    args = parseArgs(words, program, ownCommands)
    if (args.command === '') throw new UsageError(program, 'the following arguments are required: <command>')
  } catch (error) {
    if (!(error instanceof UsageError)) throw error
    log.line(`${error.command}: error: ${error.message}`)
    return 2
  }
  log.threshold = thresholdOf(args)
  log.json = args.values['log-json'] === true
  if (args.values['show-version'] === true) {
    log.always('borg.output.show-version')
    log.message('info', 'borg.output.show-version', `borgbackup version ${borgVersion}`)
  }
  const signals = new Signals()
  const context = new CommandContext({ args, program, argv: [program, ...words], env: process.env, log, signals, fuseThread })
  signals.onUnanswered = reason => {
    const code = tell(reason, context, signals.first)
    if (context.flag('show-rc')) showRc(log, code)
    releaseHeldLocks()
    exit(code)
  }
  tellListening(process.env)
  let code: number
  try {
    native().umask(context.octal('umask'))
    if (context.flag('bypass-lock') && !allowedToBypassLock.has(args.command)) throw new BorgError('Error', 'Error: Not allowed to bypass locking mechanism for chosen command')
    const load = commands[args.command]
    if (!load) throw new BorgError('Error', `borgfs cannot do '${args.command}' yet. Use borg for it: both work on the same repositories.`)
    const command = await load()
    await ran(context, async () => {
      await command(context)
      flushOutput()
    })
    code = context.exit.code
  } catch (error) {
    code = tell(error, context, signals.first)
  } finally {
    signals.uninstall()
  }
  if (context.flag('show-rc')) showRc(log, code)
  return code
}

/** What fails when it ends is not worth more than what made it end. */
async function ran(context: CommandContext, work: () => Promise<void>): Promise<void> {
  try {
    await work()
  } catch (error) {
    await context.close().catch(() => undefined)
    throw error
  }
  await context.close()
}

function isCommand(word: string): boolean {
  return word in commandSpecs || word in commands || twoWordCommands.has(word)
}

function thresholdOf(args: ParsedArgs): Threshold {
  const { values } = args
  if (values.debug === true) return 'debug'
  if (values.info === true || values.verbose === true) return 'info'
  if (values.critical === true) return 'critical'
  if (values.error === true) return 'error'
  return 'warning'
}

/** One line for a person's mistake; a stack only for ours. Returns the exit code. */
function tell(thrown: unknown, context: CommandContext, signal: AbortSignal): number {
  const error: unknown = signal.aborted && !(thrown instanceof BorgError) ? signal.reason : thrown
  const { log, exit } = context
  if (error instanceof BrokenPipe) return 0
  if (error instanceof UsageError) {
    log.line(`${error.command}: error: ${error.message}`)
    return 2
  }
  if (error instanceof SignalError) log.message('error', 'borg.archiver', error.message)
  else if (error instanceof BorgError) log.message('error', 'borg.archiver', error.message, error instanceof IntegrityError ? 'IntegrityError' : error.msgid)
  else if (isHostError(error)) log.message('error', 'borg.archiver', `${hostSentence(error)}`, 'OSError')
  else log.message('error', 'borg.archiver', `Local Exception\n${error instanceof Error ? error.stack : String(error)}`, error instanceof Error ? error.name : 'Exception')
  return exit.ofError(error)
}

function isHostError(error: unknown): error is NodeJS.ErrnoException {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' && /^E[A-Z0-9]+$/.test(error.code)
}

function hostSentence(error: NodeJS.ErrnoException): string {
  switch (error.code) {
    case 'ENOSPC': return 'No space left on device. Make room and run the command again: nothing that was saved before is lost.'
    case 'EDQUOT': return 'The disk quota is exhausted. Make room and run the command again: nothing that was saved before is lost.'
    case 'EROFS': return `The file system is read-only${error.path ? `: ${error.path}` : ''}.`
    case 'EACCES': case 'EPERM': return `Permission denied${error.path ? `: ${error.path}` : ''}.`
  }
  return error.message
}

function showRc(log: StderrLog, code: number): void {
  log.always('borg.output.show-rc')
  const [level, word] = code === 0 ? ['info', 'success'] as const : code === 1 || (code >= 100 && code < 128) ? ['warning', 'warning'] as const : code >= 128 ? ['error', 'signal'] as const : ['error', 'error'] as const
  log.message(level, 'borg.output.show-rc', `terminating with ${word} status, rc ${code}`)
}
