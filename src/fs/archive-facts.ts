/** What the drive tells of archives and their files in xattrs of its own, `user.borgfs.*`, which no list shows (incoming.md §5). */
import { idHex } from '../engine/ids.js'
import type { ArchiveTree } from './archive-tree.js'
import type { ArchiveHead, ArchiveInfo } from './engine-port.js'
import { Errno } from './types.js'

export const factPrefix = 'user.borgfs.'
export const deduplicatedSizeXattr = `${factPrefix}archive.deduplicated_size`
export const chunksXattr = `${factPrefix}chunks`
/** The kernel passes no larger value. */
const maxXattrBytes = 65536

/** Of an archive's own directory; deduplicatedSizeXattr alone is not among them. */
export function archiveFact(name: string, info: ArchiveInfo, { facts }: ArchiveHead): Uint8Array | Errno {
  if (info.merged) return Errno.ENODATA
  switch (name.slice(factPrefix.length)) {
    case 'archive.id': return Buffer.from(info.id)
    case 'archive.comment': return facts.comment
    case 'archive.hostname': return facts.hostname
    case 'archive.username': return facts.username
    case 'archive.original_size': return facts.originalSize === undefined ? Errno.ENODATA : Buffer.from(String(facts.originalSize))
    case 'archive.nfiles': return facts.fileCount === undefined ? Errno.ENODATA : Buffer.from(String(facts.fileCount))
    default: return Errno.ENODATA
  }
}

/** Of a file: a line `ID SIZE` for each chunk. E2BIG where the kernel could not carry it. */
export function chunkLines(tree: ArchiveTree, row: number): Uint8Array | Errno {
  const start = tree.chunkStart(row), count = tree.chunkCount(row)
  if (count * 67 > maxXattrBytes) return Errno.E2BIG
  let lines = ''
  for (let chunk = start; chunk < start + count; chunk++) lines += `${idHex(tree.chunkId(chunk))} ${tree.chunkSize(chunk)}\n`
  return lines.length > maxXattrBytes ? Errno.E2BIG : Buffer.from(lines)
}
