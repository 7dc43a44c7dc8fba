/**
 * Ways to the kernel for answers that do not go back in their request's own slot, which the loop sends itself: long ones from where they
 * lie, and late ones from a slot of their own, because by then the first holds another request. One thread uses it. Writing an answer never
 * waits for anything but the copy.
 */
import { writeSync, writevSync } from 'node:fs'
import { constants } from 'node:os'
import { errnoOf } from '../../../engine/errors.js'
import { replyHeaderSize, Slot } from './protocol.js'

/** A body this long is handed over where it lies; below, copying is cheaper than a second piece. */
export const gatherSize = 16384

/** The rare larger ones (an xattr of 64 KiB) have memory of their own. */
const lateSize = 65536

/** The kernel takes 1024 in one call, and an answer in two is none. Files of the smallest chunks have thousands in a read. */
const maxPieces = 1000

export class Replies {
  readonly #late = new Slot(lateSize)
  readonly #fd: number
  readonly #header = new Slot(replyHeaderSize)

  constructor(fd: number) {
    this.#fd = fd
  }

  /** For an answer that comes late, of as many bytes as were asked for at most. Each has it until it is sent. */
  lateSlot(wanted = 0): Slot {
    return wanted <= lateSize - replyHeaderSize ? this.#late : new Slot(replyHeaderSize + wanted)
  }

  /** Writes the first `length` bytes. False if nobody waits for the answer any more: its request was interrupted or the mount ended. */
  send(slot: Slot, length: number): boolean {
    try {
      writeSync(this.#fd, slot.bytes, 0, length)
      return true
    } catch (error) {
      return dropped(error)
    }
  }

  /** An answer whose body lies elsewhere, in one or several pieces of `length` bytes together. The bytes are free again on return. */
  sendBytes(uniqueLow: number, uniqueHigh: number, pieces: readonly Uint8Array[], length: number): boolean {
    const { u32 } = this.#header
    u32[0] = replyHeaderSize + length
    u32[1] = 0
    u32[2] = uniqueLow
    u32[3] = uniqueHigh
    try {
      writevSync(this.#fd, [this.#header.bytes, ...(pieces.length < maxPieces ? pieces : [Buffer.concat(pieces)])])
      return true
    } catch (error) {
      return dropped(error)
    }
  }
}

/** ENOENT: the request is gone. ENODEV, ECONNABORTED and ENOTCONN: the mount is. Everything else is a fault of ours. */
const nobodyWaits = ['ENOENT', 'ENODEV', 'ENOTCONN', 'ECONNABORTED']

/** Whether a reply was not taken because nobody waits for it any more. */
export function isUnawaited(errno: number): boolean {
  return nobodyWaits.some(code => constants.errno[code as keyof typeof constants.errno] === errno)
}

function dropped(error: unknown): false {
  if (nobodyWaits.includes(errnoOf(error) ?? '')) return false
  throw error
}
