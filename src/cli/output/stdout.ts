/** Standard output: gathered, written synchronously; a reader that went away ends the program silently (commands.md §5). */
import { writeSync } from 'node:fs'
import { errnoOf } from '../../engine/errors.js'

const flushChars = 1 << 16

/** Thrown when nobody reads the output any more: exit code 0 without a word. */
export class BrokenPipe extends Error {}

let gathered: Buffer[] = []
/** Text behind what is gathered. */
let text = ''
let length = 0

export function print(more: string | Buffer): void {
  if (typeof more === 'string') text += more
  else {
    takeText()
    gathered.push(more)
  }
  length += more.length
  if (length >= flushChars) flushOutput()
}

function takeText(): void {
  if (text === '') return
  gathered.push(Buffer.from(text))
  text = ''
}

export function flushOutput(): void {
  takeText()
  if (gathered.length === 0) return
  const bytes = gathered.length === 1 ? gathered[0]! : Buffer.concat(gathered)
  gathered = []
  length = 0
  writeFully(1, bytes)
}

/** Writes to a descriptor that may be a pipe in non-blocking mode. */
export function writeFully(fd: number, bytes: Buffer): void {
  for (let done = 0; done < bytes.length; ) {
    try {
      done += writeSync(fd, bytes, done)
    } catch (error) {
      if (errnoOf(error) === 'EPIPE') throw new BrokenPipe()
      if (errnoOf(error) !== 'EAGAIN') throw error
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 5)
    }
  }
}
