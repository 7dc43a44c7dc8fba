/** An answer that goes to a file of the person's choice, or to stdout for `-`. */
import { closeSync, fstatSync, openSync, realpathSync, writeFileSync } from 'node:fs'
import { CommandError, errnoOf } from '../../engine/errors.js'
import { saveFile } from '../../engine/platform/save-file.js'
import { fileError } from './file-error.js'
import { print, writeFully } from './stdout.js'

const pendingChars = 1 << 18

/** A regular file is replaced in one step, anything else (a pipe, a device) written to. CommandError for a directory, as Borg says it. */
export function writeAnswer(path: string, content: Buffer | string): void {
  if (path === '-') return print(content)
  try {
    const existing = realPath(path)
    if (existing === undefined || isRegular(existing)) saveFile(existing ?? path, Buffer.from(content))
    else writeFileSync(existing, content)
  } catch (error) {
    if (errnoOf(error) === 'EISDIR') throw new CommandError(`'${path}' must be a file, not a directory`, { cause: error })
    throw fileError(error, path)
  }
}

function realPath(path: string): string | undefined {
  try {
    return realpathSync(path)
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return undefined
    throw error
  }
}

/** EISDIR for a directory, EACCES for what may not be written, before anything is made beside it. */
function isRegular(path: string): boolean {
  const fd = openSync(path, 'a')
  try {
    return fstatSync(fd).isFile()
  } finally {
    closeSync(fd)
  }
}

/** The same piece by piece, for answers that need not fit into memory. The file is written to as it is. */
export class AnswerStream {
  readonly #fd: number | undefined
  #pending: string[] = []
  #length = 0

  constructor(path: string) {
    this.#fd = path === '-' ? undefined : openSync(path, 'w')
  }

  write(text: string): void {
    if (this.#fd === undefined) return print(text)
    this.#pending.push(text)
    this.#length += text.length
    if (this.#length > pendingChars) this.#flush()
  }

  #flush(): void {
    writeFully(this.#fd!, Buffer.from(this.#pending.join('')))
    this.#pending = []
    this.#length = 0
  }

  /** Writes the rest. */
  finish(): void {
    if (this.#fd !== undefined) this.#flush()
  }

  close(): void {
    if (this.#fd !== undefined) closeSync(this.#fd)
  }
}
