/** Questions at the terminal: passphrases without echo, yes or no (commands.md §6). */
import { closeSync, openSync, readSync } from 'node:fs'
import { ReadStream } from 'node:tty'
import type { PassphrasePrompt } from '../engine/crypto/passphrase.js'
import type { StderrLog } from './output/log.js'
import { writeFully } from './output/stdout.js'

const yes = new Set(['Yes', 'YES', 'yes', 'Y', 'y', '1'])
const no = new Set(['No', 'NO', 'no', 'N', 'n', '0'])
/** The default is no, without a word. */
const byDefault = new Set(['Default', 'DEFAULT', 'default', 'D', 'd', ''])

export class TerminalPrompt implements PassphrasePrompt {
  readonly #log: StderrLog
  readonly #env: NodeJS.ProcessEnv

  constructor(log: StderrLog, env: NodeJS.ProcessEnv) {
    this.#log = log
    this.#env = env
  }

  say(line: string): void {
    this.#log.line(line)
  }

  /** From /dev/tty, or stdin where that is a terminal. Ctrl-C ends the program as anywhere else. */
  async ask(prompt: string): Promise<Buffer | undefined> {
    let fd: number
    try {
      fd = openSync('/dev/tty', 'r+')
    } catch {
      return this.#askStdin(prompt)
    }
    return readHidden(new ReadStream(fd), prompt, fd)
  }

  #askStdin(prompt: string): Promise<Buffer | undefined> | undefined {
    return process.stdin.isTTY ? readHidden(process.stdin as ReadStream, prompt, 2) : undefined
  }

  /** An environment variable answers, or a line of stdin; anything unclear is no. `only`: the one answer that counts as yes. */
  confirm(question: string, variable: string, options: { only?: string } = {}): Promise<boolean> {
    const tell = (type: string, message: string, extra: Record<string, unknown> = {}): void => {
      if (this.#log.json) this.#log.object({ ...extra, type, msgid: variable, message })
      else if (message) writeFully(2, Buffer.from(type === 'question_prompt' ? message : `${message}\n`))
    }
    tell('question_prompt', question)
    const given = this.#env[variable]
    let answer = given
    if (given !== undefined) tell('question_env_answer', `${given} (from ${variable})`, { env_var: variable })
    else answer = readLine()
    if (answer !== undefined && byDefault.has(answer)) return Promise.resolve(false)
    if (answer === undefined || no.has(answer)) {
      tell('question_accepted_false', 'Aborting.')
      return Promise.resolve(false)
    }
    if (options.only === undefined ? yes.has(answer) : answer === options.only) return Promise.resolve(true)
    tell('question_invalid_answer', 'Invalid answer, aborting.')
    return Promise.resolve(false)
  }

  /** A question within a dialogue that no variable answers: read on until the answer is clear; the default is no. */
  confirmTyped(question: string): boolean {
    writeFully(2, Buffer.from(question))
    for (;;) {
      const answer = readLine()
      if (answer === undefined || no.has(answer)) return false
      if (yes.has(answer)) return true
    }
  }
}

/** One line of stdin without its end; undefined at the end of input. */
export function readLine(): string | undefined {
  const bytes: number[] = []
  const one = Buffer.alloc(1)
  for (;;) {
    let count: number
    try {
      count = readSync(0, one, 0, 1, null)
    } catch {
      return undefined
    }
    if (count === 0) return bytes.length > 0 ? Buffer.from(bytes).toString() : undefined
    if (one[0] === 10) return Buffer.from(bytes).toString()
    bytes.push(one[0]!)
  }
}

function readHidden(input: ReadStream, prompt: string, output: number): Promise<Buffer | undefined> {
  return new Promise(resolve => {
    writeFully(output, Buffer.from(prompt))
    const typed: number[] = []
    input.setRawMode(true)
    input.resume()
    const finish = (result: Buffer | undefined): void => {
      input.setRawMode(false)
      input.removeListener('data', take)
      writeFully(output, Buffer.from('\n'))
      input.pause()
      if (input !== (process.stdin as ReadStream)) input.destroy()
      resolve(result)
    }
    const take = (data: Buffer): void => {
      for (const byte of data) {
        if (byte === 3) {
          finish(undefined)
          process.kill(process.pid, 'SIGINT')
          return
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
  })
}

/** Whether a person could be asked at all. */
export function hasTerminal(): boolean {
  try {
    closeSync(openSync('/dev/tty', 'r+'))
    return true
  } catch {
    return process.stdin.isTTY === true
  }
}
