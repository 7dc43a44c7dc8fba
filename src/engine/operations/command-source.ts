/** What another program prints, as a source of content or of paths (`create --content-from-command`, `--paths-from-command`). */
import { spawn } from 'node:child_process'
import type { Readable } from 'node:stream'
import type { ByteSource } from '../chunker/chunker.js'
import { BorgError, errnoOf } from '../errors.js'

export class CommandSource implements ByteSource {
  readonly #name: string
  readonly #output: Readable
  readonly #ended: Promise<number>
  #rest: Buffer = Buffer.alloc(0)
  #atEnd = false
  #problem: Error | undefined
  #wake: (() => void) | undefined

  readonly #kill: () => void

  private constructor(name: string, output: Readable, ended: Promise<number>, kill: () => void) {
    this.#name = name
    this.#kill = kill
    this.#output = output
    this.#ended = ended
    // Listened to from the start: what nobody listens to is thrown away by Node when the program ends.
    output.on('readable', () => this.#wake?.())
    output.on('end', () => {
      this.#atEnd = true
      this.#wake?.()
    })
    output.on('error', error => {
      this.#problem = error
      this.#wake?.()
    })
  }

  /** Starts the program. It has a process group of its own: a Ctrl-C at the terminal is a wish to us, and none to it. `input`: what it reads. BorgError if there is no such program. */
  static async start(words: readonly string[], input: 'inherit' | number = 'inherit'): Promise<CommandSource> {
    const [name = '', ...args] = words
    const child = spawn(name, args, { stdio: [input, 'pipe', 'inherit'], detached: true })
    const ended = new Promise<number>(resolve => child.once('close', (code, signal) => resolve(code ?? -(signalNumbers[signal!] ?? 1))))
    const source = new CommandSource(name, child.stdout!, ended, () => child.kill('SIGKILL'))
    await new Promise<void>((resolve, reject) => {
      child.once('spawn', resolve)
      child.once('error', error => reject(new BorgError('Error', `Failed to execute command: ${reasonOf(error)}: '${name}'`, undefined, { cause: error })))
    })
    return source
  }

  async read(into: Uint8Array): Promise<number> {
    while (this.#rest.length === 0) {
      const bytes = this.#output.read() as Buffer | null
      if (bytes) this.#rest = bytes
      else if (this.#problem) throw this.#problem
      else if (this.#atEnd) return 0
      else await new Promise<void>(resolve => (this.#wake = resolve))
    }
    const count = Math.min(into.length, this.#rest.length)
    into.set(this.#rest.subarray(0, count))
    this.#rest = this.#rest.subarray(count)
    return count
  }

  /** Its exit code, below zero for a signal. After the last byte, or `stop`. */
  get exited(): Promise<number> {
    return this.#ended
  }

  /** Nobody wants more of it. What it printed goes with it: unread, its end would never come. */
  stop(): void {
    this.#kill()
    this.#output.destroy()
  }

  /** After the last byte. BorgError unless the program said that all went well: half an output is no backup. */
  async finished(): Promise<void> {
    const code = await this.#ended
    if (code !== 0) throw new BorgError('Error', `Command '${this.#name}' exited with status ${code}`)
  }
}

/** The same, started when its output is first asked for: not for a repository that turns out to be locked, or an archive that is there already. */
export class LaterCommand implements ByteSource {
  readonly #words: readonly string[]
  #started: Promise<CommandSource> | undefined

  constructor(words: readonly string[]) {
    this.#words = words
  }

  /** BorgError if there is no such program. */
  async read(into: Uint8Array): Promise<number> {
    return (await this.#source).read(into)
  }

  async finished(): Promise<void> {
    await (await this.#source).finished()
  }

  get #source(): Promise<CommandSource> {
    return (this.#started ??= CommandSource.start(this.#words))
  }
}

const signalNumbers: Partial<Record<NodeJS.Signals, number>> = { SIGHUP: 1, SIGINT: 2, SIGQUIT: 3, SIGABRT: 6, SIGKILL: 9, SIGSEGV: 11, SIGPIPE: 13, SIGTERM: 15 }

function reasonOf(error: Error): string {
  switch (errnoOf(error)) {
    case 'ENOENT': return '[Errno 2] No such file or directory'
    case 'EACCES': return '[Errno 13] Permission denied'
  }
  return error.message
}

/** The parts of a source between delimiters; none after the last one. */
export async function* separated(source: ByteSource, delimiter: Buffer): AsyncGenerator<Buffer> {
  const block = Buffer.alloc(1 << 16)
  let rest = Buffer.alloc(0)
  for (;;) {
    const count = await source.read(block)
    if (count === 0) break
    const bytes = Buffer.concat([rest, block.subarray(0, count)])
    let start = 0
    for (;;) {
      const at = bytes.indexOf(delimiter, start)
      if (at < 0) break
      yield Buffer.from(bytes.subarray(start, at))
      start = at + delimiter.length
    }
    rest = bytes.subarray(start)
  }
  if (rest.length > 0) yield rest
}
