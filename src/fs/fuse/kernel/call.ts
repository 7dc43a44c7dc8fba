/** Who asks, and the answer's way back when it is put off. */
import type { Call, FsCore } from '../../core.js'
import type { Errno } from '../../types.js'
import type { DirectoryReply } from './directory-reply.js'
import type { Slot } from './protocol.js'

/** How a value of one kind becomes the body of a reply. */
export interface Reply<T> {
  /** Writes the body at byte 16 of the slot and returns its size; or the Errno that the value turns out to be. */
  put(slot: Slot, value: T, about: About): number | Errno
  /** The kernel never got the value: gives back what came with it. */
  undo?(core: FsCore, value: T, about: About): void
}

/** What the reply must know of the request, which is overwritten by then. */
export interface About {
  readonly uniqueLow: number
  readonly uniqueHigh: number
  readonly opcode: number
  readonly ino: number
  /** Bytes asked for (READ, xattrs). */
  readonly wanted: number
  readonly pid: number
  readonly reply: Reply<unknown>
  /** READDIR and READDIRPLUS only. */
  readonly directory: DirectoryReply | undefined
}

export interface Deferred extends About {
  /** 'dropped': nobody waits any more, and the late answer is only to be undone. */
  state: 'waiting' | 'answered' | 'dropped'
}

/** The call being handled; one object for all of them, so a core keeps only what `defer` returns. */
export class CurrentCall implements Call<unknown>, About {
  uid = 0
  gid = 0
  pid = 0
  killSetId = false
  umask = 0
  /** SETXATTR has the fields of setxattrExt; the same for all requests of a mount. */
  longSetxattr = false
  uniqueLow = 0
  uniqueHigh = 0
  opcode = 0
  ino = 0
  wanted = 0
  reply!: Reply<unknown>
  directory: DirectoryReply | undefined
  deferred: Deferred | undefined
  readonly #settle: (deferred: Deferred, answer: unknown) => void

  constructor(settle: (deferred: Deferred, answer: unknown) => void) {
    this.#settle = settle
  }

  get unique(): number {
    return this.uniqueLow + this.uniqueHigh * 4294967296
  }

  defer(): (answer: unknown) => void {
    const { uniqueLow, uniqueHigh, opcode, ino, wanted, pid, reply, directory } = this
    const deferred: Deferred = { uniqueLow, uniqueHigh, opcode, ino, wanted, pid, reply, directory, state: 'waiting' }
    this.deferred = deferred
    return (answer) => this.#settle(deferred, answer)
  }
}
