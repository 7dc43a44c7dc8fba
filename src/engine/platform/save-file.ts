/** Replacing a file so that a crash leaves the old or the new content, never a mixture. */
import { randomBytes } from 'node:crypto'
import { dirname } from 'node:path'
import { native } from '../native.js'
import { files } from './files.js'

/**
 * Writes `content`, or all its parts, beside `path`, makes it durable, and renames it over. Leaves nothing behind when it
 * fails. `durable`: 'content' leaves the name to a later syncDirectory; 'no' is for what a digest guards and losing costs
 * time only.
 */
export function saveFile(path: string, content: Uint8Array | readonly Uint8Array[], options: { mode?: number; durable?: 'yes' | 'content' | 'no' } = {}): void {
  replaceFile(path, fd => (content instanceof Uint8Array ? files.writeAll(fd, content) : files.writeAllOf(fd, content)), options)
}

/** The same for content that `write` puts into the open file piece by piece. */
export function replaceFile(path: string, write: (fd: number) => unknown, options: { mode?: number; durable?: 'yes' | 'content' | 'no' } = {}): void {
  const durable = options.durable ?? 'yes'
  const beside = new Replacement(path, options.mode)
  try {
    write(beside.fd)
    if (durable !== 'no') files.datasync(beside.fd)
    beside.takePlace()
  } finally {
    beside.end()
  }
  if (durable === 'yes') syncDirectory(dirname(path))
}

/** replaceFile without this thread waiting, neither for the disk nor for `write`: the same steps in the same order. */
export async function replaceFileLater(path: string, write: (fd: number) => unknown, options: { mode?: number; durable?: 'yes' | 'no' } = {}): Promise<void> {
  const durable = options.durable ?? 'yes'
  const beside = new Replacement(path, options.mode)
  try {
    await write(beside.fd)
    if (durable === 'yes') await files.datasyncLater(beside.fd)
    beside.takePlace()
  } finally {
    beside.end()
  }
  if (durable === 'yes') await files.syncDirectoryLater(dirname(path))
}

/** saveFile, durable, without this thread waiting for the disk. */
export function saveFileLater(path: string, content: Uint8Array, options: { mode?: number } = {}): Promise<void> {
  return replaceFileLater(path, fd => files.writeAll(fd, content), options)
}

/** A file beside another, whose place it is to take. */
class Replacement {
  readonly fd: number
  readonly #path: string
  readonly #temporary: string
  #open = true
  #placed = false

  constructor(path: string, mode = 0o666) {
    this.#path = path
    this.#temporary = `${path}-${randomBytes(4).toString('hex')}.tmp`
    this.fd = files.open(this.#temporary, 'wx', mode)
  }

  takePlace(): void {
    this.#close()
    files.rename(this.#temporary, this.#path)
    this.#placed = true
  }

  /** Leaves nothing of it, unless it took its place. */
  end(): void {
    try {
      this.#close()
    } finally {
      if (!this.#placed) files.removeIfThere(this.#temporary)
    }
  }

  #close(): void {
    if (!this.#open) return
    this.#open = false
    files.close(this.fd)
  }
}

const writebackBytes = 16 << 20

/**
 * Writes pieces one after the other from the start of a file; their bytes. The disk begins early, so that making it durable is not all
 * waiting.
 */
export function writePieces(fd: number, pieces: Iterable<Uint8Array>): number {
  let written = 0, started = 0
  for (const piece of pieces) {
    files.writeAll(fd, piece)
    written += piece.length
    if (written - started < writebackBytes) continue
    native().startWriteback(fd, started, written - started)
    started = written
  }
  return written
}

/** Makes what a file holds durable, whoever has it open. */
export function syncContent(path: string): void {
  const fd = files.open(path, 'r')
  try {
    files.datasync(fd)
  } finally {
    files.close(fd)
  }
}

export function syncDirectory(path: string): void {
  files.syncDirectory(path)
}
