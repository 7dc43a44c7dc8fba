/** Standard output: gathered, written synchronously; a reader that went away ends the program silently (commands.md §5). */
import { writeSync } from 'node:fs'
import { errnoOf } from '../../engine/errors.js'

const flushChars = 1 << 16

/** Thrown when nobody reads the output any more: exit code 0 without a word. */
export class BrokenPipe extends Error {}

let gathered: Buffer[] = []
/** Text that was printed after what is gathered: rows are encoded together. */
let text = ''
let length = 0

export function print(output: string | Buffer): void {
  if (typeof output === 'string') text += output
  else {
    gatherText()
    gathered.push(output)
  }
  length += output.length
  if (length >= flushChars) flushOutput()
}

function gatherText(): void {
  if (text === '') return
  gathered.push(Buffer.from(text))
  text = ''
}

export function flushOutput(): void {
  if (length === 0) return
  gatherText()
  const bytes = Buffer.concat(gathered)
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
