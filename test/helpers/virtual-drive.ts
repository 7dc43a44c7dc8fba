/** The drive's core over a fake engine, asked as the kernel would ask it. */
import type { Item } from '../../src/engine/archive/item.js'
import { type Call, copyBytes, LATER, type ReadBytes } from '../../src/fs/core.js'
import type { ArchiveInfo, MountView } from '../../src/fs/engine-port.js'
import { rootIno } from '../../src/fs/inodes.js'
import type { Subtree } from '../../src/fs/subtree.js'
import { type Entry, Errno, type Ino, type Opened } from '../../src/fs/types.js'
import { VirtualFs } from '../../src/fs/virtual-fs.js'
import { archiveInfo, build, call, Contents, FakeEngine, mountView, treeOptions } from './mount-fixtures.js'

export interface VirtualDrive {
  fs: VirtualFs
  engine: FakeEngine
  contents: Contents
  notices: string[]
  stored: { ino: Ino; offset: number; data: Buffer }[]
  /** Whole files that were given to the kernel, where the transport can. */
  given: Map<Ino, Buffer>
  /** Files that the kernel does not know, and takes nothing of. */
  unknown?: (ino: Ino) => boolean
  /** The value now or after the engine answered; an Errno as it is. */
  now<T>(operation: (asked: Call<T>) => unknown): T
  walk(path: string): Entry
  open(path: string): { ino: Ino; fh: number }
  read(path: string, offset: number, length: number): Buffer | Errno
  list(ino: Ino, cookie?: number, room?: number): [string, number][]
}

/** Archives of these items, and other parts of the root. */
export function virtualDrive(archives: Record<string, (contents: Contents) => Item[]>, options: { view?: Partial<MountView>; parts?: Map<string, Subtree>; times?: Record<string, bigint>; gives?: boolean } = {}): VirtualDrive {
  const contents = new Contents()
  const engine = new FakeEngine(contents)
  const infos: ArchiveInfo[] = []
  for (const [name, items] of Object.entries(archives)) {
    infos.push({ ...archiveInfo(name), timeNs: options.times?.[name] ?? 77n })
    engine.trees.set(name, build(items(contents), treeOptions({ rootTimeNs: 77n })))
  }
  const notices: string[] = []
  const stored: VirtualDrive['stored'] = []
  const given: VirtualDrive['given'] = new Map()
  const fs = new VirtualFs({
    view: mountView(infos, options.view), client: engine.client, ...(options.parts && { parts: options.parts }),
    notices: {
      invalidateInode: (ino) => notices.push(`inode ${ino}`),
      invalidateAttributes: (ino) => notices.push(`attributes ${ino}`),
      invalidatePages(ino, offset, length, done) {
        notices.push(`pages ${ino} ${offset} ${length}`)
        done()
      },
      invalidateEntry: (parent, name) => notices.push(`entry ${parent} ${Buffer.from(name).toString()}`),
      store: (ino, offset, data) => stored.push({ ino, offset, data: Buffer.from(data) }),
      ...(options.gives && {
        storeNow(ino: Ino, pieces: readonly Uint8Array[], length: number) {
          if (drive.unknown?.(ino)) return false
          given.set(ino, Buffer.concat(pieces))
          if (given.get(ino)!.length !== length) throw new Error('a wrong length was told')
          return true
        },
      }),
    },
  })
  engine.answer()
  const now = <T>(operation: (asked: Call<T>) => unknown): T => {
    const asked = call<T>()
    const answer = operation(asked)
    if (answer !== LATER) return answer as T
    // A read may ask again for what a small cache has lost meanwhile.
    for (let round = 0; round < 3 && asked.later() === undefined; round++) engine.answer()
    return asked.later() as T
  }
  const walk = (path: string): Entry => {
    let entry = { attr: { ino: rootIno } } as Entry
    for (const part of path.split('/')) entry = now<Entry>((asked) => fs.lookup(entry.attr.ino, Buffer.from(part), asked))
    return entry
  }
  const open = (path: string) => {
    const { attr: { ino } } = walk(path)
    return { ino, fh: now<Opened>((asked) => fs.open(ino, 0, asked)).fh }
  }
  const readOpen = (ino: Ino, fh: number, offset: number, length: number): Buffer | Errno => {
    const into = Buffer.alloc(length)
    const answer = now<number | ReadBytes | Errno>((asked) => fs.read(ino, fh, offset, into, asked as Call<ReadBytes>))
    return answer instanceof Errno ? answer : typeof answer === 'number' ? into.subarray(0, answer) : into.subarray(0, copyBytes(answer, into))
  }
  const drive: VirtualDrive = {
    fs, engine, contents, notices, stored, given, now, walk, open,
    read(path, offset, length) {
      const { ino, fh } = open(path)
      const bytes = readOpen(ino, fh, offset, length)
      fs.release(ino, fh)
      return bytes
    },
    list(ino, cookie = 0, room = Infinity) {
      const found: [string, number][] = []
      now<void>((asked) => fs.readdir(ino, 0, cookie, (name, _entry, next) => {
        if (found.length >= room) return false
        found.push([Buffer.from(name).toString(), next])
        return true
      }, asked))
      return found
    },
  }
  return drive
}
