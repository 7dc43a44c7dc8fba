/**
 * The body of READDIR and READDIRPLUS, filled entry by entry. Records are padded to 8 bytes:
 *
 *   READDIRPLUS only: fuse_entry_out (128) | ino u64 | next cookie u64 | name length u32 | type u32 | name
 *
 * An entry of READDIRPLUS gives the kernel a reference as a LOOKUP does, except `.`, `..` and names alone, which get node 0.
 */
import { type DirSink, type FsCore, isDot, isDotDot } from '../../core.js'
import type { Entry } from '../../types.js'
import { putEntry } from './answers.js'
import { replyHeaderSize, size, Slot } from './protocol.js'

export class DirectoryReply {
  /** One function for all listings. It stays this reply's own when the reply is put off. */
  readonly sink: DirSink = (name, entry, nextCookie) => this.#add(name, entry, nextCookie)
  slot: Slot
  #core: FsCore
  #position = replyHeaderSize
  #end = replyHeaderSize
  #plus = false

  constructor(core: FsCore, slot: Slot) {
    this.#core = core
    this.slot = slot
  }

  begin(maxBytes: number, plus: boolean): void {
    this.#position = replyHeaderSize
    this.#end = Math.min(replyHeaderSize + maxBytes, this.slot.bytes.length)
    this.#plus = plus
  }

  get bodySize(): number {
    return this.#position - replyHeaderSize
  }

  /** The answer comes later: memory of its own, with what was listed so far. */
  detach(): void {
    const own = new Slot(this.#end)
    this.slot.bytes.copy(own.bytes, 0, 0, this.#position)
    this.slot = own
  }

  /** Nobody took the reply: the references it would have given are returned. */
  undo(): void {
    if (!this.#plus) return
    for (let at = replyHeaderSize; at < this.#position; ) {
      const ino = this.slot.getU64(at)
      if (ino !== 0) this.#core.forget(ino, 1)
      at += size.entryOut + recordSize(this.slot.getU32(at + size.entryOut + 16))
    }
    this.#position = replyHeaderSize
  }

  #add(name: Uint8Array, entry: Entry, nextCookie: number): boolean {
    const start = this.#position
    const next = start + recordSize(name.length) + (this.#plus ? size.entryOut : 0)
    if (next > this.#end) return false
    const { slot } = this
    const { ino, mode } = entry.attr
    let at = start
    if (this.#plus) {
      const bare = entry.nameOnly || isDot(name) || isDotDot(name)
      at += putEntry(slot, at, entry, bare ? 0 : ino)
      if (!bare) this.#core.remember?.(ino)
    }
    slot.setU64(at, ino)
    slot.setU64(at + 8, nextCookie)
    slot.setU32(at + 16, name.length)
    slot.setU32(at + 20, (mode >>> 12) & 15)
    slot.bytes.set(name, at + size.dirent)
    this.#position = next
    return true
  }
}

function recordSize(nameLength: number): number {
  return (size.dirent + nameLength + 7) & ~7
}
