/** `import-tar`: the members of a tar as a new archive (commands.md). */
import type { Item } from '../archive/item.js'
import { normalPath, storedPath } from '../patterns/path-text.js'
import { typeBlockDevice, typeCharDevice, typeDirectory, typeFifo, typeFile, typeSymlink } from '../platform/attributes.js'
import { deviceNumber } from '../platform/device-number.js'
import { TarError, type TarMember, type TarReader } from '../tar/tar-reader.js'
import { escapedBytes, escapedText } from '../text.js'
import type { ArchiveEntry } from './archive-entry.js'
import type { StoreListener } from './archive-pipeline.js'
import { type ArchiveOrigin, createdFacts } from './create.js'
import { clampTime } from './file-item.js'
import { storeArchive, type StoreContext, type StoredArchive } from './store-archive.js'

export interface ImportTarListener extends StoreListener {
  /** A: a file, h d s b c f, E: what no archive can hold. In the tar's order, the name as the tar has it. */
  status?(letter: string, name: Buffer): void
  unsupported?(name: Buffer, typeFlag: string): void
  /** After the tar's last byte, before anything is saved; should it throw, nothing is. */
  finished?(): Promise<void>
}

const types: Readonly<Record<Exclude<TarMember['kind'], 'unknown'>, readonly [type: number, letter: string]>> = {
  file: [typeFile, 'A'], hardLink: [typeFile, 'h'], symlink: [typeSymlink, 's'], directory: [typeDirectory, 'd'], fifo: [typeFifo, 'f'], characterDevice: [typeCharDevice, 'c'], blockDevice: [typeBlockDevice, 'b'],
}

/** Errors of storeArchive, and TarError: nothing is saved then but the last checkpoint. */
export function importTar(context: StoreContext, name: string, origin: ArchiveOrigin, tar: TarReader, listener: ImportTarListener): Promise<StoredArchive> {
  return storeArchive(context, name, entries(tar, context.chunker.singleChunkBytes, listener), createdFacts(origin), listener)
}

async function* entries(tar: TarReader, smallBytes: number, listener: ImportTarListener): AsyncGenerator<Iterable<ArchiveEntry>> {
  for (let member; (member = await tar.next()); ) {
    const { kind, name, size, typeFlag } = member
    if (kind === 'unknown') {
      yield [{ done: () => {
        listener.unsupported?.(name, typeFlag)
        listener.status?.('E', name)
      } }]
      continue
    }
    const [type, letter] = types[kind]
    const entry: ArchiveEntry = { item: itemOf(member, type), done: () => listener.status?.(letter, name) }
    if (kind !== 'file') yield [entry]
    else if (size > smallBytes) yield [{ ...entry, content: { kind: 'source', source: tar, size } }]
    else {
      const bytes = Buffer.allocUnsafeSlow(size)
      if (await tar.read(bytes) < size) throw new TarError('a file is shorter than it should be')
      yield [{ ...entry, content: { kind: 'bytes', bytes } }]
    }
  }
  await listener.finished?.()
}

/** Hard links refer to the first name by its stored path; Borg leaves that as the tar has it, so that a link to `/a` or `./a` leads nowhere. */
function itemOf({ kind, name, linkName, mode, uid, gid, user, group, mtimeNs, major, minor }: TarMember, type: number): Item {
  const item: Item = { path: stored(name), mode: type | mode, uid, gid, user: user.length > 0 ? user : null, group: group.length > 0 ? group : null, mtimeNs: clampTime(mtimeNs) }
  if (kind === 'hardLink') item.source = stored(linkName)
  else if (kind === 'symlink') item.source = linkName
  else if (kind === 'characterDevice' || kind === 'blockDevice') item.rdev = deviceNumber(major, minor)
  return item
}

function stored(name: Buffer): Buffer {
  return escapedBytes(storedPath(normalPath(escapedText(name))))
}
