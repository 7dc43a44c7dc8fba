/**
 * Tells the kernel what it did not ask. Such a write may wait for a directory's or a page's lock, and who holds the lock may be
 * waiting for an answer of the FUSE thread, or for a chunk from the engine thread. So a third thread writes them, one that
 * no thread waits for. It starts with the first notice.
 */
import { writeSync, writevSync } from 'node:fs'
import { MessageChannel, type MessagePort, receiveMessageOnPort, Worker } from 'node:worker_threads'
import type { KernelNotices } from '../../core.js'
import type { Ino } from '../../types.js'
import { notice, replyHeaderSize, Slot } from './protocol.js'

/** fuse_out_header and fuse_notify_store_out. */
const storeHeadSize = 40
/** Stores are only offers: with so many bytes waiting, further ones are dropped. */
const maxQueuedBytes = 8 << 20

export interface NoticesThreadData {
  readonly fd: number
  readonly port: MessagePort
  /** One int32: bytes posted and not yet written. */
  readonly queued: Int32Array
  /** The loop's: signalled after each answer. */
  readonly wakeFd: number
}

/** A notice; with a number where an answer is wanted, which is that number, when it is written. */
export interface PostedNotice {
  readonly bytes: Uint8Array<ArrayBuffer>
  readonly answer?: number
}

export class Notices implements KernelNotices {
  readonly #fd: number
  readonly #storeHead = new Slot(storeHeadSize)
  readonly #queued = new Int32Array(new SharedArrayBuffer(4))
  readonly #wakeFd: number
  readonly #awaited = new Map<number, () => void>()
  #nextAnswer = 1
  #port: MessagePort | undefined
  #closed = false

  /** `wakeFd`: tells whoever calls `drain`, in this thread, that there is something. */
  constructor(fd: number, wakeFd: number) {
    this.#fd = fd
    this.#wakeFd = wakeFd
    // Also the number of the request, which a notice has none of, and the offset.
    this.#storeHead.bytes.fill(0)
  }

  invalidateInode(ino: Ino): void {
    this.#post(invalInodeNotice(ino))
  }

  /** Waits for no lock but of memory. */
  invalidateAttributes(ino: Ino): void {
    try {
      writeSync(this.#fd, invalInodeNotice(ino, -1))
    } catch {
      // As in the thread.
    }
  }

  invalidatePages(ino: Ino, offset: number, length: number, done: () => void): void {
    const answer = this.#nextAnswer++
    this.#awaited.set(answer, done)
    this.#post(invalInodeNotice(ino, offset, length), answer)
  }

  /** Tells what was written of what somebody waits for. */
  drain(): void {
    while (this.#awaited.size > 0 && this.#port) {
      const received = receiveMessageOnPort(this.#port) as { message: number } | undefined
      if (!received) return
      const done = this.#awaited.get(received.message)
      this.#awaited.delete(received.message)
      done?.()
    }
  }

  invalidateEntry(parent: Ino, name: Uint8Array): void {
    this.#post(invalEntryNotice(parent, name))
  }

  store(ino: Ino, offset: number, data: Uint8Array): void {
    if (Atomics.load(this.#queued, 0) + data.length <= maxQueuedBytes) this.#post(storeNotice(ino, offset, data))
  }

  storeNow(ino: Ino, pieces: readonly Uint8Array[], length: number): boolean {
    const head = this.#storeHead
    head.setU32(0, storeHeadSize + length)
    head.setU32(4, notice.store)
    head.setU64(16, ino)
    head.setU32(32, length)
    try {
      writevSync(this.#fd, [head.bytes, ...pieces])
      return true
    } catch {
      // As in the thread: what the kernel did not take, it will ask for.
      return false
    }
  }

  /** Nothing more is sent. The thread ends by itself after what was posted. */
  close(): void {
    this.#closed = true
    this.#port?.postMessage(null)
    this.#port = undefined
  }

  #post(bytes: Uint8Array<ArrayBuffer>, answer?: number): void {
    if (this.#closed) return
    this.#port ??= this.#start()
    Atomics.add(this.#queued, 0, bytes.length)
    this.#port.postMessage({ bytes, ...(answer !== undefined && { answer }) } satisfies PostedNotice, [bytes.buffer])
  }

  #start(): MessagePort {
    const { port1, port2 } = new MessageChannel()
    const data: NoticesThreadData = { fd: this.#fd, port: port2, queued: this.#queued, wakeFd: this.#wakeFd }
    const worker = new Worker(new URL('./notices-thread.js', import.meta.url), { workerData: data, transferList: [port2] })
    worker.unref()
    port1.unref()
    return port1
  }
}

function noticeOf(code: number, bodySize: number): { bytes: Uint8Array<ArrayBuffer>; view: DataView } {
  const bytes = new Uint8Array(new ArrayBuffer(replyHeaderSize + bodySize))
  const view = new DataView(bytes.buffer)
  view.setUint32(0, bytes.length, littleEndian)
  view.setInt32(4, code, littleEndian)
  return { bytes, view }
}

/** Host byte order, as the kernel wants it. */
const littleEndian = new Uint8Array(new Uint16Array([1]).buffer)[0] === 1

/** fuse_notify_inval_inode_out: ino u64 | offset i64 | length i64. Offset and length 0: attributes and all pages; a negative offset: no pages. */
export function invalInodeNotice(ino: Ino, offset = 0, length = 0): Uint8Array<ArrayBuffer> {
  const { bytes, view } = noticeOf(notice.invalInode, 24)
  view.setBigUint64(16, BigInt(ino), littleEndian)
  view.setBigInt64(24, BigInt(offset), littleEndian)
  view.setBigInt64(32, BigInt(length), littleEndian)
  return bytes
}

/** fuse_notify_inval_entry_out: parent u64 | name length u32 | flags u32 | name, NUL. */
export function invalEntryNotice(parent: Ino, name: Uint8Array): Uint8Array<ArrayBuffer> {
  const { bytes, view } = noticeOf(notice.invalEntry, 16 + name.length + 1)
  view.setBigUint64(16, BigInt(parent), littleEndian)
  view.setUint32(24, name.length, littleEndian)
  bytes.set(name, 32)
  return bytes
}

/** fuse_notify_store_out: nodeid u64 | offset u64 | size u32 | pad u32 | data. */
export function storeNotice(ino: Ino, offset: number, data: Uint8Array): Uint8Array<ArrayBuffer> {
  const { bytes, view } = noticeOf(notice.store, 24 + data.length)
  view.setBigUint64(16, BigInt(ino), littleEndian)
  view.setBigUint64(24, BigInt(offset), littleEndian)
  view.setUint32(32, data.length, littleEndian)
  bytes.set(data, 40)
  return bytes
}

/** fuse_notify_delete_out: parent u64 | child u64 | name length u32 | pad u32 | name, NUL. */
export function deleteNotice(parent: Ino, child: Ino, name: Uint8Array): Uint8Array<ArrayBuffer> {
  const { bytes, view } = noticeOf(notice.delete, 24 + name.length + 1)
  view.setBigUint64(16, BigInt(parent), littleEndian)
  view.setBigUint64(24, BigInt(child), littleEndian)
  view.setUint32(32, name.length, littleEndian)
  bytes.set(name, 40)
  return bytes
}
