/** Bytes that go to a file or to stdout, or come from a file or stdin, through a program that compresses them, or unpacks them, if one is named. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, openSync } from 'node:fs'
import { shellWords } from '../../engine/shell-words.js'
import type { ByteSource } from '../../engine/chunker/chunker.js'
import { BorgError, errnoOf } from '../../engine/errors.js'
import { CommandSource } from '../../engine/operations/command-source.js'
import { DescriptorSource } from '../../engine/operations/file-source.js'
import { fileError } from './file-error.js'
import type { StderrLog } from './log.js'
import { flushOutput, print, writeFully } from './stdout.js'

/** Gathered before they are written, for files of many small pieces. */
const gatheredBytes = 1 << 20

const filters: readonly (readonly [endings: readonly string[], program: string])[] = [
  [['.tar.gz', '.tgz'], 'gzip'], [['.tar.bz2', '.tbz'], 'bzip2'], [['.tar.xz', '.txz'], 'xz'], [['.tar.zstd', '.tar.zst'], 'zstd'], [['.tar.lz4'], 'lz4'],
]

/** The program that a tar of this name is compressed by, or unpacked; undefined for none. */
export function filterFor(path: string, direction: 'pack' | 'unpack'): string | undefined {
  const program = filters.find(([endings]) => endings.some(ending => path.endsWith(ending)))?.[1]
  return program && direction === 'unpack' ? `${program} -d` : program
}

export class FilteredFile {
  readonly #fd: number | undefined
  readonly #filter: string | undefined
  readonly #child: ChildProcess | undefined
  readonly #exited: Promise<number> | undefined
  #failed = false
  readonly #gathered = Buffer.allocUnsafe(gatheredBytes)
  #length = 0

  private constructor(fd: number | undefined, filter: string | undefined, child: ChildProcess | undefined) {
    this.#fd = fd
    this.#filter = filter
    this.#child = child
    this.#exited = child && new Promise(resolve => child.once('close', code => resolve(code ?? -1)))
    // Why the program took no more it says itself.
    child?.stdin!.on('error', () => (this.#failed = true))
  }

  /** `path` `-`: stdout. An existing file is replaced as it is, as by a shell. `filter`: a command line; empty for none. BorgError. */
  static async open(path: string, filter: string | undefined, log: StderrLog): Promise<FilteredFile> {
    const fd = path === '-' ? undefined : opened(path, 'w')
    if (!filter) return new FilteredFile(fd, undefined, undefined)
    try {
      flushOutput()
      return new FilteredFile(fd, filter, await started(filter, fd ?? 1, log))
    } catch (error) {
      if (fd !== undefined) closeSync(fd)
      throw error
    }
  }

  async write(bytes: Buffer): Promise<void> {
    if (this.#length + bytes.length > gatheredBytes) await this.#flush()
    if (bytes.length > gatheredBytes) return this.#pass(bytes)
    bytes.copy(this.#gathered, this.#length)
    this.#length += bytes.length
  }

  async #flush(): Promise<void> {
    const bytes = this.#gathered.subarray(0, this.#length)
    this.#length = 0
    if (bytes.length > 0) await this.#pass(bytes)
  }

  /** Done with `bytes` when it is done. */
  async #pass(bytes: Buffer): Promise<void> {
    const child = this.#child
    if (child) {
      const written = await new Promise<boolean>(resolve => (this.#failed ? resolve(false) : child.stdin!.write(bytes, error => resolve(!error))))
      if (!written) await this.#ended(false)
    } else if (this.#fd !== undefined) {
      writeFully(this.#fd, bytes)
    } else {
      // Borrowed, and stdout gathers.
      print(bytes)
      flushOutput()
    }
  }

  /** Everything is written and taken. BorgError if the program says that it failed. */
  async finish(): Promise<void> {
    await this.#flush()
    if (this.#child) {
      this.#child.stdin!.end()
      await this.#ended(true)
    }
  }

  async #ended(mayBeWell: boolean): Promise<void> {
    const code = await this.#exited!
    if (code !== 0 || !mayBeWell) throw new BorgError('Error', `Error: filter ${this.#filter} failed, rc=${code}`)
  }

  /** The program is not let finish what is not whole. */
  async close(): Promise<void> {
    if (this.#child && this.#child.exitCode === null) {
      this.#child.kill('SIGKILL')
      await this.#exited
    }
    if (this.#fd !== undefined) closeSync(this.#fd)
  }
}

/** What a tar is read from. `finished` after its last byte; `close` in any case. */
export interface FilteredSource {
  readonly source: ByteSource
  /** BorgError if the program says that it failed. */
  finished(): Promise<void>
  close(): Promise<void>
}

/** `path` `-`: stdin. `filter`: a command line that gets what the file holds; empty for none. BorgError. */
export async function openFiltered(path: string, filter: string | undefined, log: StderrLog): Promise<FilteredSource> {
  const fd = path === '-' ? 0 : opened(path, 'r')
  const close = (): void => {
    if (fd !== 0) closeSync(fd)
  }
  if (!filter) {
    const source = new DescriptorSource(fd)
    return { source, finished: () => Promise.resolve(), close: () => source.end().then(close) }
  }
  try {
    const words = filterWords(filter, log)
    const program = await CommandSource.start(words, fd).catch((error: unknown) => notStarted(filter, words[0]!, error, log))
    return {
      source: program,
      finished: async () => {
        const code = await program.exited
        if (code !== 0) throw new BorgError('Error', `Error: filter ${filter} failed, rc=${code}`)
      },
      close: async () => {
        program.stop()
        await program.exited
        close()
      },
    }
  } catch (error) {
    close()
    throw error
  }
}

function opened(path: string, flags: 'r' | 'w'): number {
  try {
    return openSync(path, flags)
  } catch (error) {
    throw fileError(error, path)
  }
}

function filterWords(filter: string, log: StderrLog): readonly [string, ...string[]] {
  const words = shellWords(filter)
  if (!words) return filterFailed(filter, 'No closing quotation', log)
  if (words.length === 0) return filterFailed(filter, 'an empty command line is not permitted', log)
  return words as [string, ...string[]]
}

function filterFailed(filter: string, reason: string, log: StderrLog): never {
  log.message('error', 'borg.helpers.process', `filter-process: ${reason}`)
  throw new BorgError('Error', `Error: filter ${filter}: process creation failed`)
}

function notStarted(filter: string, name: string, error: unknown, log: StderrLog): never {
  const code = errnoOf(error) ?? errnoOf((error as Error).cause)
  if (code === 'ENOENT') return filterFailed(filter, `executable not found: ${name}`, log)
  if (code === 'EACCES') return filterFailed(filter, `permission denied: ${name}`, log)
  throw error
}

/** Runs the program. It has a process group of its own: a Ctrl-C at the terminal is a wish to us, and none to it. */
async function started(filter: string, target: number, log: StderrLog): Promise<ChildProcess> {
  const [name, ...args] = filterWords(filter, log)
  // Who first asks for them, be it a worker thread, makes what they are non-blocking, for the program as well. Node makes it blocking again when it starts one.
  void [process.stdout, process.stderr]
  const child = spawn(name, args, { stdio: ['pipe', target, 'inherit'], detached: true })
  try {
    await once(child, 'spawn')
  } catch (error) {
    notStarted(filter, name, error, log)
  }
  return child
}
