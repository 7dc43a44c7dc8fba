/** Where passphrases come from (crypto.md §6, commands.md §6). The terminal is a port: cli/prompt.ts implements it. */
import { spawn } from 'node:child_process'
import { closeSync, read } from 'node:fs'
import { promisify } from 'node:util'
import { borgVersion } from '../constants.js'
import { errnoOf, messageOf } from '../errors.js'
import { shellWords } from '../shell-words.js'
import { secured } from './blake2b.js'
import { NoPassphraseFailure, PasscommandFailure, PassphraseWrong, PasswordRetriesExceeded } from './errors.js'

export interface PassphrasePrompt {
  /** Ends whatever is waited for, a command included; its reason is thrown. */
  readonly signal?: AbortSignal
  /** Reads a passphrase without echo, as UTF-8; undefined without a terminal. */
  ask(prompt: string): Promise<Buffer | undefined>
  /** One line for the person, on stderr. */
  say(line: string): void
  /** A yes/no question that an environment variable may answer; the default is no. */
  confirm(question: string, variable: string): Promise<boolean>
}

const maxTries = 3
const maxPassphraseBytes = 1 << 20
const maxNewTries = 10

/** Reads the environment once: a descriptor can be read only once per process. */
export class Passphrases {
  readonly #env: NodeJS.ProcessEnv
  readonly #prompt: PassphrasePrompt
  #given: Buffer | undefined
  #looked = false

  constructor(env: NodeJS.ProcessEnv, prompt: PassphrasePrompt) {
    this.#env = env
    this.#prompt = prompt
  }

  /** What asking for takes neither a command nor a person: what will be tried first, should a passphrase be needed at all. */
  get atHand(): Buffer | undefined {
    return this.#env.BORG_PASSPHRASE === undefined ? undefined : Buffer.from(this.#env.BORG_PASSPHRASE)
  }

  /** BORG_PASSPHRASE, BORG_PASSCOMMAND, BORG_PASSPHRASE_FD: the first that is there. */
  async #fromEnvironment(): Promise<Buffer | undefined> {
    if (!this.#looked) {
      this.#given = await readEnvironment(this.#env, this.#prompt.signal)
      this.#looked = true
    }
    return this.#given
  }

  /**
   * Tries to open something with the passphrase of an existing key. `attempt` returns undefined for a wrong one.
   * PassphraseWrong after a given one, PasswordRetriesExceeded after three typed ones, NoPassphraseFailure without a terminal.
   */
  async unlock<T>(location: string, attempt: (passphrase: Buffer) => T | undefined | Promise<T | undefined>): Promise<{ value: T; empty: boolean }> {
    const given = await this.#fromEnvironment()
    if (given !== undefined) {
      const value = await attempt(given)
      if (value === undefined) throw new PassphraseWrong()
      return { value, empty: given.length === 0 }
    }
    const unprotected = await attempt(Buffer.alloc(0))
    if (unprotected !== undefined) return { value: unprotected, empty: true }
    for (let tries = 0; tries < maxTries; tries++) {
      const typed = await this.#prompt.ask(`Enter passphrase for key ${location}: `)
      if (typed === undefined) throw new NoPassphraseFailure(this.#env)
      const value = await attempt(secured(typed))
      if (value !== undefined) return { value, empty: false }
    }
    throw new PasswordRetriesExceeded()
  }

  /** A new passphrase: BORG_NEW_PASSPHRASE, then the three variables, then typed twice. */
  async choose(): Promise<Buffer> {
    const wanted = this.#env.BORG_NEW_PASSPHRASE
    if (wanted !== undefined) return Buffer.from(wanted)
    const given = await this.#fromEnvironment()
    if (given !== undefined) return given
    for (let tries = 0; tries < maxNewTries; tries++) {
      const first = await this.#prompt.ask('Enter new passphrase: ')
      if (first === undefined) throw new NoPassphraseFailure(this.#env)
      const second = await this.#prompt.ask('Enter same passphrase again: ')
      if (second !== undefined && first.equals(second)) {
        await this.#display(first)
        return first
      }
      this.#prompt.say('Passphrases do not match')
    }
    throw new PasswordRetriesExceeded()
  }

  async #display(passphrase: Buffer): Promise<void> {
    if (!(await this.#prompt.confirm('Do you want your passphrase to be displayed for verification? [yN]: ', 'BORG_DISPLAY_PASSPHRASE'))) return
    const text = passphrase.toString('utf8')
    this.#prompt.say(`Your passphrase (between double-quotes): "${text}"`)
    this.#prompt.say('Make sure the passphrase displayed above is exactly what you wanted.')
    if (!/^[\x00-\x7f]*$/.test(text)) {
      this.#prompt.say(`Your passphrase (UTF-8 encoding in hex): ${passphrase.toString('hex')}`)
      this.#prompt.say('As you have a non-ASCII passphrase, it is recommended to keep the UTF-8 encoding in hex together with the passphrase at a safe place.')
    }
  }
}

async function readEnvironment(env: NodeJS.ProcessEnv, signal: AbortSignal | undefined): Promise<Buffer | undefined> {
  if (env.BORG_PASSPHRASE !== undefined) return Buffer.from(env.BORG_PASSPHRASE)
  if (env.BORG_PASSCOMMAND !== undefined) return runPasscommand(env.BORG_PASSCOMMAND, env, signal)
  const descriptor = env.BORG_PASSPHRASE_FD
  if (descriptor !== undefined && /^\d+$/.test(descriptor)) return withoutNewlines(await readDescriptor(Number(descriptor), signal))
  return undefined
}

async function runPasscommand(command: string, env: NodeJS.ProcessEnv, signal: AbortSignal | undefined): Promise<Buffer> {
  const words = shellWords(command)
  if (words === undefined || words.length === 0) throw new PasscommandFailure('it is empty or has an unbalanced quote')
  // The command must not see the passphrase variables, and Borg tells its version.
  const { BORG_PASSPHRASE: _1, BORG_NEW_PASSPHRASE: _2, ...rest } = env
  signal?.throwIfAborted()
  const child = spawn(words[0]!, words.slice(1), { env: { ...rest, BORG_VERSION: borgVersion }, stdio: ['inherit', 'pipe', 'inherit'] })
  const pieces: Buffer[] = []
  let length = 0
  let stop: (() => void) | undefined
  try {
    child.stdout.on('data', (piece: Buffer) => {
      pieces.push(piece)
      if ((length += piece.length) > maxPassphraseBytes) child.kill()
    })
    const [status, killedBy] = await new Promise<[number | null, NodeJS.Signals | null]>((resolve, reject) => {
      stop = () => {
        child.kill()
        reject(signal!.reason as Error)
      }
      signal?.addEventListener('abort', stop)
      child.once('error', reject)
      child.once('close', (code, name) => resolve([code, name]))
    })
    if (length > maxPassphraseBytes) throw new PasscommandFailure(`'${command}' gave more than ${maxPassphraseBytes} bytes.`)
    if (status !== 0) throw new PasscommandFailure(`Command '${command}' ended with exit status ${status ?? `of signal ${killedBy}`}.`)
  } catch (error) {
    throw errnoOf(error) === undefined ? error : new PasscommandFailure(messageOf(error))
  } finally {
    if (stop) signal?.removeEventListener('abort', stop)
  }
  return withoutNewlines(Buffer.from(Buffer.concat(pieces).toString('utf8').replace(/\r\n?/g, '\n')))
}

const readBytes = promisify(read)

/** Not synchronously: a signal would wait for whoever is to write. */
async function readDescriptor(fd: number, signal: AbortSignal | undefined): Promise<Buffer> {
  const pieces: Buffer[] = []
  const piece = Buffer.alloc(4096)
  try {
    for (;;) {
      const { bytesRead } = await readBytes(fd, piece, 0, piece.length, null)
      signal?.throwIfAborted()
      if (bytesRead === 0) break
      pieces.push(Buffer.from(piece.subarray(0, bytesRead)))
    }
    closeSync(fd)
  } catch (error) {
    signal?.throwIfAborted()
    throw new PasscommandFailure(`BORG_PASSPHRASE_FD ${fd} cannot be read: ${messageOf(error)}`)
  }
  piece.fill(0)
  return Buffer.concat(pieces)
}

function withoutNewlines(text: Buffer): Buffer {
  let end = text.length
  while (end > 0 && text[end - 1] === 10) end--
  return text.subarray(0, end)
}
