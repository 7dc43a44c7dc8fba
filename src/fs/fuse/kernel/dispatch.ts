/**
 * From a request in the slot to its answer: header, permission of the asker, the operation, and whatever the operation does:
 * answers, refuses, puts off or throws. A request is answered exactly once, or the asker waits for ever.
 */
import { readFileSync } from 'node:fs'
import { type Log, silentLog } from '../../../engine/log.js'
import { type Answer, type FsCore, LATER } from '../../core.js'
import { FsError } from '../../errno.js'
import { Errno } from '../../types.js'
import { putInit } from './answers.js'
import { type About, CurrentCall, type Deferred } from './call.js'
import { DirectoryReply } from './directory-reply.js'
import { type Operation, operationOf } from './operations.js'
import {
  at, finishError, finishReply, initFlag, maxMinor, maxTransfer, minMinor, opcode, protocolMajor, replyHeaderSize, Slot,
} from './protocol.js'
import { gatherSize, isUnawaited, type Replies } from './replies.js'

export interface DispatchOptions {
  readonly log?: Log
  /** Only this user and root may ask (`allow_root`, which the kernel does not know). */
  readonly onlyUid?: number | undefined
  /** The kernel reads ACLs and goes by them. Without, the mask of an ACL passes for what the owning group may do. Means default_permissions. */
  readonly checksAcls?: boolean
}

/** Requests that the kernel makes on behalf of descriptors that were opened with permission, or of nobody. */
const askedByAnyone = new Set<number>([
  opcode.init, opcode.read, opcode.write, opcode.fsync, opcode.release, opcode.readdir, opcode.readdirplus, opcode.fsyncdir,
  opcode.releasedir, opcode.flush, opcode.destroy,
])
/** What can be given up half way without a trace in the core but a reference. */
const questions = new Set<number>([
  opcode.lookup, opcode.getattr, opcode.readlink, opcode.read, opcode.statfs, opcode.getxattr, opcode.listxattr, opcode.readdir,
  opcode.readdirplus, opcode.opendir, opcode.lseek, opcode.access,
])

/** An answer that comes with nothing which could be taken back. */
const nothingGiven = Errno.EIO
const maxBackground = 64
const maxReadahead = 1 << 20
const enotty = 25, enosys = 38, eproto = 71

export class Dispatcher {
  readonly slot = new Slot()
  /** Requests handled. */
  count = 0
  readonly #core: FsCore
  readonly #replies: Replies
  readonly #log: Log
  readonly #onlyUid: number | undefined
  readonly #checksAcls: boolean
  readonly #call: CurrentCall
  readonly #deferred = new Map<number, Deferred>()
  /** Of the last request, if its reply was left in the slot; nothing to take back after a refusal. */
  #answer: unknown
  #directory: DirectoryReply

  constructor(core: FsCore, replies: Replies, options: DispatchOptions = {}) {
    this.#core = core
    this.#replies = replies
    this.#log = options.log ?? silentLog
    this.#onlyUid = options.onlyUid
    this.#checksAcls = options.checksAcls ?? false
    this.#call = new CurrentCall((deferred, answer) => this.#settle(deferred, answer))
    this.#directory = new DirectoryReply(core, this.slot)
  }

  /** Answers that are still owed to the kernel. */
  get deferredCount(): number {
    return this.#deferred.size
  }

  /**
   * Handles the request of `length` bytes in the slot. Returns the length of the reply, which then lies in the slot for the caller to send; 0 if it
   * went another way, comes later, or is not wanted. Never throws for what the core does.
   */
  handle(length: number): number {
    this.count++
    const { u32 } = this.slot
    const call = this.#call
    const code = u32[1]!
    call.opcode = code
    call.uniqueLow = u32[2]!
    call.uniqueHigh = u32[3]!
    call.ino = this.slot.getU64(16)
    call.uid = u32[6]!
    call.gid = u32[7]!
    call.pid = u32[8]!
    call.wanted = 0
    call.killSetId = false
    call.umask = 0
    call.deferred = undefined
    this.#answer = nothingGiven
    switch (code) {
      case opcode.forget: return this.#forget(call.ino, this.slot.getU64(at.forget.count))
      case opcode.batchForget: return this.#forgetMany(length)
      case opcode.interrupt: return this.#interrupt(this.slot.getU64(at.interrupt.unique))
      case opcode.init: return this.#init()
      // No file here takes requests of its own; programs expect this answer of them, not ENOSYS.
      case opcode.ioctl: return this.#refusal(call, enotty)
    }
    const operation = operationOf(code)
    if (!operation || (code === opcode.access && !this.#core.access)) return this.#refusal(call, enosys)
    if (this.#onlyUid !== undefined && call.uid !== this.#onlyUid && call.uid !== 0 && !askedByAnyone.has(code)) {
      return this.#refusal(call, Errno.EACCES.number)
    }
    return this.#run(operation, length)
  }

  /** The kernel did not take the reply that the last `handle` left in the slot. What it would have got is taken back. */
  notTaken(errno: number): void {
    if (!isUnawaited(errno)) this.#failed(this.#call, new Error(`the kernel refuses the reply (errno ${errno})`))
    this.#undo(this.#call, this.#answer)
  }

  #run(operation: Operation<unknown>, length: number): number {
    const call = this.#call
    call.reply = operation.reply
    call.directory = call.opcode === opcode.readdir || call.opcode === opcode.readdirplus ? this.#directory : undefined
    let answer: Answer<unknown>
    try {
      answer = operation.run(this.#core, this.slot, length, call)
      if (answer === LATER) {
        if (!call.deferred) throw new Error('the operation answers later but did not defer')
        if (call.deferred.state === 'waiting') this.#keep(call.deferred)
        return 0
      }
    } catch (error) {
      if (!(error instanceof FsError)) this.#failed(call, error)
      answer = error instanceof FsError ? error.errno : Errno.EIO
    }
    const deferred = call.deferred
    if (deferred) {
      // Deferred, then answered at once after all (or thrown): the deferred function has no effect any more.
      if (deferred.state === 'answered') return 0
      deferred.state = 'dropped'
    }
    try {
      const sent = this.#sendPieces(call, answer)
      if (sent === undefined) {
        this.#answer = answer
        return this.#reply(call, answer, this.slot)
      }
      if (!sent) this.#undo(call, answer)
      return 0
    } catch (error) {
      this.#failed(call, error)
      this.#undo(call, answer)
      this.#answer = nothingGiven
      return this.#refusal(call, Errno.EIO.number)
    }
  }

  #keep(deferred: Deferred): void {
    this.#deferred.set(deferred.uniqueLow + deferred.uniqueHigh * 4294967296, deferred)
    if (!deferred.directory) return
    deferred.directory.detach()
    this.#directory = new DirectoryReply(this.#core, this.slot)
  }

  /** The late answer. A second one is a fault of the core, and is told. */
  #settle(deferred: Deferred, answer: unknown): void {
    const key = deferred.uniqueLow + deferred.uniqueHigh * 4294967296
    const waited = this.#deferred.delete(key)
    const { state } = deferred
    deferred.state = 'answered'
    if (state === 'answered') return this.#failed(deferred, new Error('answered a second time'))
    if (state === 'dropped') return this.#undo(deferred, answer)
    // Called inside the operation itself, before LATER was returned: a listing still lies in the slot.
    // Contents of files that are longer do not go by a slot.
    // And no kernel has room for more than that, whatever a request says.
    const most = deferred.opcode === opcode.read ? gatherSize : Math.min(deferred.wanted, maxTransfer)
    const slot = deferred.directory ? (waited ? deferred.directory.slot : this.slot) : this.#replies.lateSlot(most)
    try {
      if (!this.#deliver(deferred, answer, slot)) this.#undo(deferred, answer)
    } catch (error) {
      this.#failed(deferred, error)
      this.#undo(deferred, answer)
      this.#refuse(deferred, Errno.EIO.number)
    }
  }

  /** False if nobody waits. */
  #deliver(about: About, answer: unknown, slot: Slot): boolean {
    return this.#sendPieces(about, answer) ?? this.#replies.send(slot, this.#reply(about, answer, slot))
  }

  /** Contents of files that lie elsewhere, at once and from there; undefined for all other answers. False if nobody waits. */
  #sendPieces(about: About, answer: unknown): boolean | undefined {
    if (about.opcode !== opcode.read) return undefined
    if (answer instanceof Uint8Array && answer.length >= gatherSize) {
      const bytes = answer.length > about.wanted ? answer.subarray(0, about.wanted) : answer
      return this.#replies.sendBytes(about.uniqueLow, about.uniqueHigh, [bytes], bytes.length)
    }
    if (!Array.isArray(answer)) return undefined
    const pieces = answer as readonly Uint8Array[]
    let length = 0
    for (const piece of pieces) length += piece.length
    if (length > about.wanted) throw new Error(`${length} bytes for a read of ${about.wanted}`)
    return this.#replies.sendBytes(about.uniqueLow, about.uniqueHigh, pieces, length)
  }

  /** Puts the whole reply into the slot; its length. */
  #reply(about: About, answer: unknown, slot: Slot): number {
    const { uniqueLow, uniqueHigh } = about
    // ENOSYS makes the kernel stop asking for that opcode, for all files: only handle() says it.
    if (answer instanceof Errno) return finishError(slot, uniqueLow, uniqueHigh, answer === Errno.ENOSYS ? Errno.EOPNOTSUPP.number : answer.number)
    const bodySize = about.reply.put(slot, answer, about)
    return bodySize instanceof Errno ? finishError(slot, uniqueLow, uniqueHigh, bodySize.number) : finishReply(slot, uniqueLow, uniqueHigh, bodySize)
  }

  #undo(about: About, answer: unknown): void {
    if (answer instanceof Errno || !about.reply.undo) return
    try {
      about.reply.undo(this.#core, answer, about)
    } catch (error) {
      this.#failed(about, error)
    }
  }

  #refusal(about: About, errno: number): number {
    return finishError(this.slot, about.uniqueLow, about.uniqueHigh, errno)
  }

  /** At once, and past the slot. */
  #refuse(about: About, errno: number): void {
    const late = this.#replies.lateSlot()
    this.#replies.send(late, finishError(late, about.uniqueLow, about.uniqueHigh, errno))
  }

  #failed(about: About, error: unknown): void {
    const text = error instanceof Error ? (error.stack ?? error.message) : String(error)
    this.#log.write('error', 'fuse', `Request ${about.opcode} on inode ${about.ino} failed: ${text}`)
  }

  #forget(ino: number, count: number): 0 {
    try {
      this.#core.forget(ino, count)
    } catch (error) {
      this.#failed(this.#call, error)
    }
    return 0
  }

  #forgetMany(length: number): 0 {
    const { items, itemSize, count } = at.batchForget
    const end = Math.min(items + this.slot.getU32(count) * itemSize, length)
    for (let position = items; position < end; position += itemSize) {
      this.#forget(this.slot.getU64(position), this.slot.getU64(position + 8))
    }
    return 0
  }

  /**
   * The kernel interrupts for any signal, and programs do not expect EINTR from files: only who is being killed is let go,
   * and only from a question. Everybody else waits for the answer.
   */
  #interrupt(unique: number): 0 {
    const deferred = this.#deferred.get(unique)
    if (!deferred || !questions.has(deferred.opcode) || !isDying(deferred.pid)) return 0
    this.#deferred.delete(unique)
    deferred.state = 'dropped'
    this.#refuse(deferred, Errno.EINTR.number)
    if (deferred.directory) deferred.directory.undo()
    return 0
  }

  #init(): number {
    const { slot } = this
    const call = this.#call
    const major = slot.getU32(at.init.major)
    const minor = slot.getU32(at.init.minor)
    const offered = slot.getU32(at.init.flags)
    const readahead = slot.getU32(at.init.maxReadahead)
    if (major < protocolMajor || (major === protocolMajor && minor < minMinor)) {
      this.#log.write('error', 'fuse', `The kernel speaks FUSE ${major}.${minor}; at least ${protocolMajor}.${minMinor} is needed (Linux 3.15).`)
      return this.#refusal(call, eproto)
    }
    // Without READDIRPLUS_AUTO: by that the kernel asks for names alone after the first 200 of a directory, and `find -size` or
    // `cp -r` of a large one then looks each up (60,000 files: 4.5 s instead of 0.4; `ls -f` 0.25 s instead of 0.75).
    let flags = initFlag.asyncRead | initFlag.atomicTruncate | initFlag.exportSupport | initFlag.bigWrites | initFlag.readdirplus | initFlag.asyncDirectIo
      | initFlag.parallelDirops | initFlag.maxPages | initFlag.cacheSymlinks
    if (this.#checksAcls) flags |= initFlag.posixAcl | initFlag.setxattrExt
    if (this.#core.appliesUmask) flags |= initFlag.dontMask
    if (this.#core.killsPrivileges) flags |= initFlag.handleKillprivV2
    const size = putInit(slot, replyHeaderSize, protocolMajor, {
      minor: Math.min(minor, maxMinor), maxReadahead: Math.max(readahead, maxReadahead), flags: flags & offered, maxBackground, maxTransfer, pageSize: 4096,
    })
    call.longSetxattr = (flags & offered & initFlag.setxattrExt) !== 0
    this.#log.write('debug', 'fuse', `FUSE ${major}.${minor}, flags ${(flags & offered).toString(16)} of ${offered.toString(16)}`)
    return finishReply(slot, call.uniqueLow, call.uniqueHigh, size)
  }
}

/** True if the thread has SIGKILL pending, which every deadly signal becomes. False if it cannot be told. */
function isDying(pid: number): boolean {
  if (pid === 0) return false
  try {
    const pending = /^SigPnd:\s*([0-9a-f]+)/m.exec(readFileSync(`/proc/${pid}/status`, 'latin1'))
    return pending !== null && (BigInt(`0x${pending[1]}`) & 0x100n) !== 0n
  } catch {
    // Gone, or not ours to look at.
    return false
  }
}
