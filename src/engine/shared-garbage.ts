/**
 * V8 does not count shared memory: a thread that drops SharedArrayBuffers, and makes little other garbage, would keep them for ever, and so would
 * every thread that once was sent them. So each counts what it lets go, and collects when that is much.
 */
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { native } from './native.js'

const muchBytes = 64 << 20
let bytes = 0
let collect: (() => void) | undefined

/** Of memory that this thread will not refer to any more, or that takes the place of as much. */
export function letGoShared(byteLength: number): void {
  if ((bytes += byteLength) < muchBytes) return
  collectGarbage()
}

/** All of this thread's, at once: tens of milliseconds. */
export function collectGarbage(): void {
  bytes = 0
  if (!collect) {
    setFlagsFromString('--expose-gc')
    collect = runInNewContext('gc') as () => void
  }
  collect()
}

/** Tables that their owner will not look into again, but byte workers perhaps still do: for `giveBackShared` when they do not. */
export const outgrown = new WeakSet<SharedArrayBuffer>()

/** The memory goes back to the host now, and reads as zeros from then on; only the addresses wait for a collection. Nobody may use it any more. */
export function giveBackShared(buffer: SharedArrayBuffer): void {
  native().giveBackPages(new Uint8Array(buffer))
}
