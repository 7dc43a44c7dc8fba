/** Questions at the terminal: passphrases without echo, yes or no (commands.md §6). */
import { openSync, read } from 'node:fs'
import { setTimeout as pause } from 'node:timers/promises'
import { promisify } from 'node:util'
import { errnoOf } from '../engine/errors.js'
import { ReadStream } from 'node:tty'
import type { PassphrasePrompt } from '../engine/crypto/passphrase.js'
import { SignalError } from './exit.js'
import type { StderrLog } from './output/log.js'
import { writeFully } from './output/stdout.js'

const yes = new Set(['Yes', 'YES', 'yes', 'Y', 'y', '1'])
const no = new Set(['No', 'NO', 'no', 'N', 'n', '0'])
/** The default is no, without a word. */
const byDefault = new Set(['Default', 'DEFAULT', 'default', 'D', 'd', ''])

export class TerminalPrompt implements PassphrasePrompt {
  readonly #log: StderrLog
  readonly #env: NodeJS.ProcessEnv
  readonly signal: AbortSignal

  /** `signal` ends each question; its reason is thrown. */
  constructor(log: StderrLog, env: NodeJS.ProcessEnv, signal: AbortSignal) {
    this.#log = log
    this.#env = env
    this.signal = signal
  }

  say(line: string): void {
    this.#log.line(line)
  }

  /** From /dev/tty, or stdin where that is a terminal. Ctrl-C is thrown as SIGINT's SignalError. */
  async ask(prompt: string): Promise<Buffer | undefined> {
    let fd: number
    try {
      fd = openSync('/dev/tty', 'r+')
    } catch {
      return this.#askStdin(prompt)
    }
    const input = new ReadStream(fd)
    return readHidden(input, prompt, fd, this.signal).finally(() => input.destroy())
  }

  #askStdin(prompt: string): Promise<Buffer | undefined> | undefined {
    return process.stdin.isTTY ? readHidden(process.stdin as ReadStream, prompt, 2, this.signal) : undefined
  }

  /** An environment variable answers, or a line of stdin; anything unclear is no. `only`: the one answer that counts as yes. */
  async confirm(question: string, variable: string, options: { only?: string } = {}): Promise<boolean> {
    const tell = (type: string, message: string, extra: Record<string, unknown> = {}): void => {
      if (this.#log.json) this.#log.object({ ...extra, type, msgid: variable, message })
      else if (message) writeFully(2, Buffer.from(type === 'question_prompt' ? message : `${message}\n`))
    }
    tell('question_prompt', question)
    const given = this.#env[variable]
    let answer = given
    if (given !== undefined) tell('question_env_answer', `${given} (from ${variable})`, { env_var: variable })
    else answer = await readLine(this.signal)
    if (answer !== undefined && byDefault.has(answer)) return false
    if (answer === undefined || no.has(answer)) {
      tell('question_accepted_false', 'Aborting.')
      return false
    }
    if (options.only === undefined ? yes.has(answer) : answer === options.only) return true
    tell('question_invalid_answer', 'Invalid answer, aborting.')
    return false
  }

  /** A question within a dialogue that no variable answers: read on until the answer is clear; the default is no. */
  async confirmTyped(question: string): Promise<boolean> {
    writeFully(2, Buffer.from(question))
    for (;;) {
      const answer = await readLine(this.signal)
      if (answer === undefined || no.has(answer)) return false
      if (yes.has(answer)) return true
    }
  }
}

const readBytes = promisify(read)

/** One line of stdin without its end; undefined at the end of input. Not synchronously: signals would wait for it. */
export async function readLine(signal: AbortSignal): Promise<string | undefined> {
  const bytes: number[] = []
  const one = Buffer.alloc(1)
  for (;;) {
    let count: number
    try {
      ;({ bytesRead: count } = await unlessAborted(readBytes(0, one, 0, 1, null), signal))
    } catch (error) {
      signal.throwIfAborted()
      if (errnoOf(error) !== 'EAGAIN') return undefined
      // process.stdin, once touched, is a terminal that does not block.
      await pause(20)
      continue
    }
    if (count === 0) return bytes.length > 0 ? Buffer.from(bytes).toString() : undefined
    if (one[0] === 10) return Buffer.from(bytes).toString()
    bytes.push(one[0]!)
  }
}

/** The read itself goes on, and holds nothing up when the process ends. */
function unlessAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const abort = (): void => reject(signal.reason as Error)
    if (signal.aborted) abort()
    signal.addEventListener('abort', abort, { once: true })
    work.then(resolve, reject).finally(() => signal.removeEventListener('abort', abort))
  })
}

function readHidden(input: ReadStream, prompt: string, output: number, signal: AbortSignal): Promise<Buffer | undefined> {
  return new Promise((resolve, reject) => {
    writeFully(output, Buffer.from(prompt))
    const typed: number[] = []
    input.setRawMode(true)
    input.resume()
    const finish = (result: Buffer | undefined, refusal?: Error): void => {
      input.setRawMode(false)
      signal.removeEventListener('abort', abort)
      input.removeListener('data', take)
      writeFully(output, Buffer.from('\n'))
      input.pause()
      if (refusal) reject(refusal)
      else resolve(result)
    }
    const abort = (): void => finish(undefined, signal.reason as Error)
    const take = (data: Buffer): void => {
      for (const byte of data) {
        if (byte === 3) {
          return finish(undefined, new SignalError('SIGINT'))
        }
        if (byte === 13 || byte === 10) return finish(Buffer.from(typed))
        if (byte === 4 && typed.length === 0) return finish(undefined)
        if (byte === 127 || byte === 8) {
          // One character, not one byte, of UTF-8.
          while (typed.length > 0 && (typed.pop()! & 0xc0) === 0x80);
        } else if (byte === 21) typed.length = 0
        else typed.push(byte)
      }
    }
    input.on('data', take)
    if (signal.aborted) return abort()
    signal.addEventListener('abort', abort)
  })
}
