/**
 * The handlers that fuse-native calls, over a core. Each answers exactly once: a handler that throws would leave its
 * caller waiting for ever, so everything ends in a number.
 */
import type { Log } from '../../../engine/log.js'
import { type AttrReply, type Call, copyBytes, type Created, type FsCore, LATER, type ReadBytes } from '../../core.js'
import { FsError } from '../../errno.js'
import { type AttrChange, Errno, type Ino, type Opened } from '../../types.js'
import { nativeStat, nativeStatfs } from './attributes.js'
import { listing, Paths } from './paths.js'
import { answerOf } from './questions.js'

type Done = (result: number, value?: unknown, more?: unknown) => void

/** fuse-native's handles are 32 bits and not 0, the core's are not. */
class Handles {
  readonly #open = new Map<number, { readonly ino: Ino; readonly fh: number }>()
  #next = 1

  add(ino: Ino, fh: number): number {
    while (this.#open.has(this.#next)) this.#next = this.#next >= 0x7ffffffe ? 1 : this.#next + 1
    const handle = this.#next
    this.#open.set(handle, { ino, fh })
    this.#next = handle >= 0x7ffffffe ? 1 : handle + 1
    return handle
  }

  get(handle: number): { readonly ino: Ino; readonly fh: number } {
    const found = this.#open.get(handle)
    if (!found) throw new FsError(Errno.EBADF, `no handle ${handle}`)
    return found
  }

  take(handle: number): { readonly ino: Ino; readonly fh: number } {
    const found = this.get(handle)
    this.#open.delete(handle)
    return found
  }
}

const unchanged = 0xffffffff

export interface NativeHandlers {
  /** For `new Fuse(…)`. */
  readonly operations: Record<string, (...args: never[]) => void>
  /** Undefined where the file has none; FsError otherwise. */
  getxattr(path: string, name: string): Promise<Uint8Array>
  listxattr(path: string): Promise<Uint8Array[]>
  /** Both times as the native record holds them, while its utimens handler runs. */
  setTimes(times: { readonly atimeNs: bigint; readonly mtimeNs: bigint } | undefined): void
  /** The negative number that an error becomes. */
  failure(error: unknown): number
}

export function nativeHandlers(core: FsCore, log: Log): NativeHandlers {
  const paths = new Paths(core)
  const handles = new Handles()
  let times: { readonly atimeNs: bigint; readonly mtimeNs: bigint } | undefined

  function failure(error: unknown): number {
    if (error instanceof FsError) return -(error.errno === Errno.ENOSYS ? Errno.EOPNOTSUPP : error.errno).number
    log.write('error', 'fuse', `A request failed: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`)
    return -Errno.EIO.number
  }

  /** Answers 0, or the number the work gives. */
  function finish(done: Done, work: () => Promise<number | void>): void {
    begin(work).then((result) => done(result ?? 0), (error: unknown) => done(failure(error)))
  }

  function finishWith(done: Done, work: () => Promise<readonly unknown[]>): void {
    begin(work).then((values) => done(0, ...values), (error: unknown) => done(failure(error)))
  }

  const change = (path: string, what: AttrChange): Promise<void> => paths.at(path, async (ino) => {
    await answerOf<AttrReply>((call) => core.setattr(ino, what, call))
  })
  const opened = async (ino: Ino, reply: Promise<Opened>): Promise<number> => handles.add(ino, (await reply).fh)
  /** The entry's reference is not kept: libfuse comes back with paths. */
  const made = async (entry: Promise<{ attr: { ino: Ino } }>): Promise<void> => core.forget((await entry).attr.ino, 1)

  const operations = {
    getattr: (path: string, done: Done) => finishWith(done, () => paths.at(path, async (ino) => {
      const { attr } = await answerOf<AttrReply>((call) => core.getattr(ino, undefined, call))
      return [nativeStat(attr)]
    })),
    readdir: (path: string, done: Done) => finishWith(done, () => paths.at(path, async (ino) => {
      const found = await listing(core, ino)
      const own = nativeStat((await answerOf<AttrReply>((call) => core.getattr(ino, undefined, call))).attr)
      return [['.', '..', ...found.map(({ name }) => name.toString('utf8'))], [own, own, ...found.map(({ entry }) => nativeStat(entry.attr))]]
    })),
    readlink: (path: string, done: Done) => finishWith(done, () => paths.at(path, async (ino) => {
      const target = await answerOf<Uint8Array>((call) => core.readlink(ino, call))
      return [Buffer.from(target).toString('utf8')]
    })),
    statfs: (path: string, done: Done) => finishWith(done, () => paths.at(path, async (ino) =>
      [nativeStatfs(await answerOf((call) => core.statfs(ino, call)))])),

    open: (path: string, flags: number, done: Done) => finishWith(done, () => paths.at(path, async (ino) =>
      [await opened(ino, answerOf((call) => core.open(ino, flags, call)))])),
    opendir: (path: string, _flags: number, done: Done) => finishWith(done, () => paths.at(path, async (ino) =>
      [await opened(ino, answerOf((call) => core.opendir(ino, call)))])),
    create: (path: string, mode: number, done: Done) => finishWith(done, () => paths.insideNew(path, async (parent, name) => {
      const { entry, opened } = await answerOf<Created>((call) => core.create(parent, name, mode, readWrite, call))
      core.forget(entry.attr.ino, 1)
      return [handles.add(entry.attr.ino, opened.fh)]
    })),
    release: (_path: string, handle: number, done: Done) => finish(done, async () => {
      const { ino, fh } = handles.take(handle)
      core.release(ino, fh)
    }),
    releasedir: (_path: string, handle: number, done: Done) => finish(done, async () => {
      const { ino, fh } = handles.take(handle)
      core.releasedir(ino, fh)
    }),
    read: (_path: string, handle: number, into: Buffer, length: number, offset: number, done: Done) => finish(done, async () => {
      const { ino, fh } = handles.get(handle)
      const room = into.subarray(0, length)
      // Other memory is only valid until the core's next operation, so it is copied before anything else runs.
      return await answerOf<number>((call) => {
        const defer: Call<ReadBytes>['defer'] = () => {
          const settle = call.defer()
          return (answer) => settle(answer instanceof Errno ? answer : copyBytes(answer, room))
        }
        const answer = core.read(ino, fh, offset, room, { ...call, defer })
        return typeof answer === 'number' || answer instanceof Errno || answer === LATER ? answer : copyBytes(answer, room)
      })
    }),
    write: (_path: string, handle: number, data: Buffer, length: number, offset: number, done: Done) => finish(done, () => {
      const { ino, fh } = handles.get(handle)
      return answerOf<number>((call) => core.write(ino, fh, offset, data.subarray(0, length), call))
    }),
    flush: (_path: string, handle: number, done: Done) => finish(done, () => {
      const { ino, fh } = handles.get(handle)
      return answerOf<void>((call) => core.flush(ino, fh, call))
    }),
    fsync: (_path: string, dataOnly: number, handle: number, done: Done) => finish(done, () => {
      const { ino, fh } = handles.get(handle)
      return answerOf<void>((call) => core.fsync(ino, fh, dataOnly !== 0, call))
    }),
    fsyncdir: (_path: string, _dataOnly: number, handle: number, done: Done) => finish(done, () => {
      const { ino, fh } = handles.get(handle)
      return answerOf<void>((call) => core.fsyncdir(ino, fh, call))
    }),

    truncate: (path: string, size: number, done: Done) => finish(done, () => change(path, { size })),
    ftruncate: (_path: string, handle: number, size: number, done: Done) => finish(done, async () => {
      const { ino, fh } = handles.get(handle)
      await answerOf<AttrReply>((call) => core.setattr(ino, { size, fh }, call))
    }),
    chmod: (path: string, mode: number, done: Done) => finish(done, () => change(path, { mode: mode & 0o7777 })),
    chown: (path: string, uid: number, gid: number, done: Done) => finish(done, () => change(path, {
      ...(uid === unchanged ? {} : { uid }), ...(gid === unchanged ? {} : { gid }),
    })),
    utimens(path: string, atimeMs: number, _mtimeMs: number, done: Done) {
      const what = times ?? { atimeNs: BigInt(atimeMs) * 1_000_000n, mtimeNs: BigInt(atimeMs) * 1_000_000n }
      finish(done, () => change(path, what))
    },

    mknod: (path: string, mode: number, rdev: number, done: Done) => finish(done, () => paths.insideNew(path, (parent, name) =>
      made(answerOf((call) => core.mknod(parent, name, mode, rdev, call))))),
    mkdir: (path: string, mode: number, done: Done) => finish(done, () => paths.insideNew(path, (parent, name) =>
      made(answerOf((call) => core.mkdir(parent, name, mode, call))))),
    symlink: (target: string, path: string, done: Done) => finish(done, () => paths.insideNew(path, (parent, name) =>
      made(answerOf((call) => core.symlink(parent, name, Buffer.from(target), call))))),
    link: (path: string, newPath: string, done: Done) => finish(done, () => paths.at(path, (ino) => paths.insideNew(newPath, (parent, name) =>
      made(answerOf((call) => core.link(ino, parent, name, call)))))),
    unlink: (path: string, done: Done) => finish(done, () => paths.inside(path, (parent, name) =>
      answerOf<void>((call) => core.unlink(parent, name, call)))),
    rmdir: (path: string, done: Done) => finish(done, () => paths.inside(path, (parent, name) =>
      answerOf<void>((call) => core.rmdir(parent, name, call)))),
    rename: (path: string, newPath: string, done: Done) => finish(done, () => paths.inside(path, (parent, name) =>
      paths.insideNew(newPath, (newParent, newName) => answerOf<void>((call) => core.rename(parent, name, newParent, newName, 0, call))))),

    setxattr: (path: string, name: string, value: Buffer, _position: number, flags: number, done: Done) => finish(done, () =>
      paths.at(path, (ino) => answerOf<void>((call) => core.setxattr(ino, Buffer.from(name), value, flags, call)))),
    // Here to be known as implemented; the adapter answers both itself, because fuse-native cannot say ERANGE.
    getxattr: (_path: string, _name: string, _position: number, done: Done) => done(-Errno.EOPNOTSUPP.number),
    listxattr: (_path: string, done: Done) => done(-Errno.EOPNOTSUPP.number),
    removexattr: (path: string, name: string, done: Done) => finish(done, () => paths.at(path, (ino) =>
      answerOf<void>((call) => core.removexattr(ino, Buffer.from(name), call)))),
  }

  return {
    operations: operations as unknown as NativeHandlers['operations'],
    getxattr: (path, name) => paths.at(path, (ino) => answerOf<Uint8Array>((call) => core.getxattr(ino, Buffer.from(name), call))),
    listxattr: (path) => paths.at(path, (ino) => answerOf<Uint8Array[]>((call) => core.listxattr(ino, call))),
    setTimes: (both) => (times = both),
    failure,
  }
}

const readWrite = 2

/** Also what the work throws before its first wait becomes a rejection. */
async function begin<T>(work: () => Promise<T>): Promise<T> {
  return await work()
}
