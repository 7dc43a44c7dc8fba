/**
 * Each opcode: what of the request goes to which operation of the core, and how its value becomes a reply. Fields are
 * read before the core is called, because replies overwrite the request.
 */
import type { Answer, AttrReply, Created, FsCore, ReadAnswer } from '../../core.js'
import { copyBytes, LATER } from '../../core.js'
import { type AttrChange, type Entry, Errno, type Opened, type StatFs } from '../../types.js'
import { putAttrReply, putBytes, putCount, putCreated, putEntry, putOpened, putStatfs } from './answers.js'
import type { CurrentCall, Reply } from './call.js'
import {
  at, fsyncDataOnly, getattrFh, maxTransfer, openKillSetId, opcode, replyHeaderSize, requestHeaderSize, setattrFlag, setxattrKillSetGid, type Slot, writeKillSetId,
} from './protocol.js'

export interface Operation<T> {
  readonly reply: Reply<T>
  /** `length` is the request's, `call.ino` its node. */
  run(core: FsCore, slot: Slot, length: number, call: CurrentCall): Answer<T>
}

const body = replyHeaderSize

const entryReply: Reply<Entry> = {
  put: (slot, entry) => putEntry(slot, body, entry),
  undo: (core, entry) => entry.attr.ino !== 0 && core.forget(entry.attr.ino, 1),
}
const attrReply: Reply<AttrReply> = { put: (slot, reply) => putAttrReply(slot, body, reply) }
const emptyReply: Reply<void> = { put: () => 0 }
const countReply: Reply<number> = { put: (slot, count) => putCount(slot, body, count) }
const targetReply: Reply<Uint8Array> = { put: (slot, target) => putBytes(slot, body, target) }
const statfsReply: Reply<StatFs> = { put: (slot, statfs) => putStatfs(slot, body, statfs) }
const openReply: Reply<Opened> = {
  put: (slot, opened) => putOpened(slot, body, opened),
  undo: (core, opened, { ino }) => core.release(ino, opened.fh),
}
const opendirReply: Reply<Opened> = {
  put: openReply.put,
  undo: (core, opened, { ino }) => core.releasedir(ino, opened.fh),
}
const createReply: Reply<Created> = {
  put: (slot, created) => putCreated(slot, body, created),
  undo(core, created) {
    core.release(created.entry.attr.ino, created.opened.fh)
    core.forget(created.entry.attr.ino, 1)
  },
}
const readReply: Reply<ReadAnswer> = {
  put(slot, answer, { wanted }) {
    // A number: the bytes are in place already.
    if (typeof answer === 'number') return Math.min(answer, wanted)
    return copyBytes(answer, slot.bytes.subarray(body, body + wanted))
  },
}
const directoryReply: Reply<void> = {
  put: (_slot, _value, { directory }) => directory!.bodySize,
  undo: (_core, _value, { directory }) => directory!.undo(),
}
/** A size of 0 asks how much room is needed. */
const xattrReply: Reply<Uint8Array> = {
  put: (slot, value, { wanted }) => (wanted === 0 ? putCount(slot, body, value.length) : value.length > wanted ? Errno.ERANGE : putBytes(slot, body, value)),
}
const xattrListReply: Reply<Uint8Array[]> = {
  put(slot, names, { wanted }) {
    let needed = 0
    for (const name of names) needed += name.length + 1
    if (wanted === 0) return putCount(slot, body, needed)
    if (needed > wanted) return Errno.ERANGE
    let position = body
    for (const name of names) {
      position += putBytes(slot, position, name)
      slot.bytes[position++] = 0
    }
    return needed
  },
}

const operations: (Operation<never> | undefined)[] = []

function define<T>(code: number, reply: Reply<T>, run: Operation<T>['run']): void {
  operations[code] = { reply, run } as Operation<unknown> as Operation<never>
}

/** Undefined for what is not supported at all: the kernel gets ENOSYS and stops asking. */
export function operationOf(code: number): Operation<unknown> | undefined {
  return operations[code] as Operation<unknown> | undefined
}

const header = requestHeaderSize

// Archives have names that no host makes (macOS counts characters), so that what is too long is for the core to say.
define(opcode.lookup, entryReply, (core, slot, length, call) => core.lookup(call.ino, slot.text(header, length), call))

define(opcode.getattr, attrReply, (core, slot, _length, call) => {
  const fh = slot.getU32(at.getattr.flags) & getattrFh ? slot.getU64(at.getattr.fh) : undefined
  return core.getattr(call.ino, fh, call)
})

define(opcode.setattr, attrReply, (core, slot, _length, call) => {
  call.killSetId = (slot.getU32(at.setattr.valid) & setattrFlag.killSetId) !== 0
  return core.setattr(call.ino, attrChange(slot), call)
})

define(opcode.readlink, targetReply, (core, _slot, _length, call) => core.readlink(call.ino, call))

define(opcode.symlink, entryReply, (core, slot, length, call) => {
  const name = slot.name(header, length)
  return core.symlink(call.ino, name, slot.text(header + name.length + 1, length), call)
})

define(opcode.mknod, entryReply, (core, slot, length, call) => {
  call.umask = slot.getU32(at.mknod.umask)
  return core.mknod(call.ino, slot.name(at.mknod.name, length), slot.getU32(at.mknod.mode), slot.getU32(at.mknod.rdev), call)
})

define(opcode.mkdir, entryReply, (core, slot, length, call) => {
  call.umask = slot.getU32(at.mkdir.umask)
  return core.mkdir(call.ino, slot.name(at.mkdir.name, length), slot.getU32(at.mkdir.mode), call)
})

define(opcode.unlink, emptyReply, (core, slot, length, call) => core.unlink(call.ino, slot.name(header, length), call))

define(opcode.rmdir, emptyReply, (core, slot, length, call) => core.rmdir(call.ino, slot.name(header, length), call))

define(opcode.rename, emptyReply, (core, slot, length, call) => rename(core, slot, length, call, at.rename.names, 0))

define(opcode.rename2, emptyReply, (core, slot, length, call) =>
  rename(core, slot, length, call, at.rename2.names, slot.getU32(at.rename2.flags)))

define(opcode.link, entryReply, (core, slot, length, call) =>
  core.link(slot.getU64(at.link.ino), call.ino, slot.name(at.link.name, length), call))

define(opcode.open, openReply, (core, slot, _length, call) => {
  call.killSetId = (slot.getU32(at.open.openFlags) & openKillSetId) !== 0
  return core.open(call.ino, slot.getU32(at.open.flags), call)
})

define(opcode.create, createReply, (core, slot, length, call) => {
  call.killSetId = (slot.getU32(at.create.openFlags) & openKillSetId) !== 0
  call.umask = slot.getU32(at.create.umask)
  return core.create(call.ino, slot.name(at.create.name, length), slot.getU32(at.create.mode), slot.getU32(at.create.flags), call)
})

define(opcode.read, readReply, (core, slot, _length, call) => {
  const size = Math.min(slot.getU32(at.read.size), maxTransfer)
  const fh = slot.getU64(at.read.fh)
  const offset = slot.getU64(at.read.offset)
  call.wanted = size
  return core.read(call.ino, fh, offset, slot.bytes.subarray(body, body + size), call)
})

define(opcode.write, countReply, (core, slot, length, call) => {
  call.killSetId = (slot.getU32(at.write.writeFlags) & writeKillSetId) !== 0
  const end = Math.min(at.write.data + slot.getU32(at.write.size), length)
  return core.write(call.ino, slot.getU64(at.write.fh), slot.getU64(at.write.offset), slot.bytes.subarray(at.write.data, end), call)
})

define(opcode.statfs, statfsReply, (core, _slot, _length, call) => core.statfs(call.ino, call))

define(opcode.release, emptyReply, (core, slot, _length, call) => core.release(call.ino, slot.getU64(at.release.fh)))

define(opcode.flush, emptyReply, (core, slot, _length, call) => core.flush(call.ino, slot.getU64(at.release.fh), call))

define(opcode.fsync, emptyReply, (core, slot, _length, call) =>
  core.fsync(call.ino, slot.getU64(at.fsync.fh), (slot.getU32(at.fsync.flags) & fsyncDataOnly) !== 0, call))

define(opcode.fsyncdir, emptyReply, (core, slot, _length, call) => core.fsyncdir(call.ino, slot.getU64(at.fsync.fh), call))

define(opcode.opendir, opendirReply, (core, _slot, _length, call) => core.opendir(call.ino, call))

define(opcode.releasedir, emptyReply, (core, slot, _length, call) => core.releasedir(call.ino, slot.getU64(at.release.fh)))

define(opcode.readdir, directoryReply, readdir)
define(opcode.readdirplus, directoryReply, readdir)

define(opcode.setxattr, emptyReply, (core, slot, length, call) => {
  const nameAt = call.longSetxattr ? at.setxattr.laterName : at.setxattr.name
  call.killSetId = call.longSetxattr && (slot.getU32(at.setxattr.moreFlags) & setxattrKillSetGid) !== 0
  const name = slot.text(nameAt, length)
  const start = nameAt + name.length + 1
  const value = slot.bytes.subarray(start, Math.min(start + slot.getU32(at.setxattr.size), length))
  return core.setxattr(call.ino, name, value, slot.getU32(at.setxattr.flags), call)
})

define(opcode.getxattr, xattrReply, (core, slot, length, call) => {
  call.wanted = slot.getU32(at.getxattr.size)
  return core.getxattr(call.ino, slot.text(at.getxattr.name, length), call)
})

define(opcode.listxattr, xattrListReply, (core, slot, _length, call) => {
  call.wanted = slot.getU32(at.getxattr.size)
  return core.listxattr(call.ino, call)
})

define(opcode.removexattr, emptyReply, (core, slot, length, call) => core.removexattr(call.ino, slot.text(header, length), call))

define(opcode.fallocate, emptyReply, (core, slot, _length, call) => {
  const { fh, offset, length, mode } = at.fallocate
  return core.fallocate(call.ino, slot.getU64(fh), slot.getU32(mode), slot.getU64(offset), slot.getU64(length), call)
})

define(opcode.lseek, countReply, (core, slot, _length, call) => {
  const offset = slot.getU64(at.lseek.offset)
  const whence = slot.getU32(at.lseek.whence)
  const answer = core.lseek(call.ino, slot.getU64(at.lseek.fh), offset, whence, call)
  return answer === Errno.ENOSYS ? seekWithoutHoles(core, offset, whence, call) : answer
})

// The older request can answer no more than 32 bits hold.
define(opcode.copyFileRange, countReply, (core, slot, _length, call) => copyFileRange(core, slot, call, 0xfffff000))
define(opcode.copyFileRange64, countReply, (core, slot, _length, call) => copyFileRange(core, slot, call, Number.MAX_SAFE_INTEGER))

define(opcode.syncfs, emptyReply, (core, _slot, _length, call) => core.syncfs(call))

define(opcode.destroy, emptyReply, () => undefined)

define(opcode.access, emptyReply, (core, slot, _length, call) => core.access!(call.ino, slot.getU32(at.access.mask), call))

function attrChange(slot: Slot): AttrChange {
  const change: AttrChange = {}
  const valid = slot.getU32(at.setattr.valid)
  if (valid & setattrFlag.mode) change.mode = slot.getU32(at.setattr.mode)
  if (valid & setattrFlag.uid) change.uid = slot.getU32(at.setattr.uid)
  if (valid & setattrFlag.gid) change.gid = slot.getU32(at.setattr.gid)
  if (valid & setattrFlag.size) change.size = slot.getU64(at.setattr.size)
  if (valid & setattrFlag.atimeNow) change.atimeNs = 'now'
  else if (valid & setattrFlag.atime) change.atimeNs = timeNs(slot, at.setattr.atime, at.setattr.atimeNsec)
  if (valid & setattrFlag.mtimeNow) change.mtimeNs = 'now'
  else if (valid & setattrFlag.mtime) change.mtimeNs = timeNs(slot, at.setattr.mtime, at.setattr.mtimeNsec)
  if (valid & setattrFlag.ctime) change.ctimeNs = timeNs(slot, at.setattr.ctime, at.setattr.ctimeNsec)
  if (valid & setattrFlag.fh) change.fh = slot.getU64(at.setattr.fh)
  return change
}

const maxTimeNs = (1n << 63n) - 1n

function timeNs(slot: Slot, seconds: number, nanoseconds: number): bigint {
  const ns = BigInt(slot.getI64(seconds)) * 1_000_000_000n + BigInt(slot.getU32(nanoseconds))
  // The kernel takes years beyond what 64 bits of nanoseconds tell (1677 to 2262): the nearest that can be kept.
  return ns < -maxTimeNs ? -maxTimeNs : ns > maxTimeNs ? maxTimeNs : ns
}

function rename(core: FsCore, slot: Slot, length: number, call: CurrentCall, names: number, flags: number): Answer<void> {
  const name = slot.name(names, length)
  const newName = slot.name(names + name.length + 1, length)
  return core.rename(call.ino, name, slot.getU64(at.rename.newParent), newName, flags, call)
}

function readdir(core: FsCore, slot: Slot, _length: number, call: CurrentCall): Answer<void> {
  const directory = call.directory!
  const fh = slot.getU64(at.read.fh)
  const cookie = slot.getU64(at.read.offset)
  directory.begin(slot.getU32(at.read.size), call.opcode === opcode.readdirplus)
  return core.readdir(call.ino, fh, cookie, directory.sink, call)
}

/** A file of a part that knows no holes: all data, with the one hole every file has at its end. ENOSYS would speak for all files. */
function seekWithoutHoles(core: FsCore, offset: number, whence: number, call: CurrentCall): number | Errno {
  const answer: Answer<AttrReply> = core.getattr(call.ino, undefined, call)
  if (answer === LATER) return Errno.EINVAL
  if (answer instanceof Errno) return answer
  if (offset >= answer.attr.size) return Errno.ENXIO
  return whence === 3 ? offset : answer.attr.size
}

function copyFileRange(core: FsCore, slot: Slot, call: CurrentCall, maxLength: number): Answer<number> {
  const { fh, offset, outIno, outFh, outOffset, length } = at.copyFileRange
  return core.copyFileRange(call.ino, slot.getU64(fh), slot.getU64(offset), slot.getU64(outIno), slot.getU64(outFh),
    slot.getU64(outOffset), Math.min(slot.getU64(length), maxLength), call)
}
