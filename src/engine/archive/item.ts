/** One filesystem object of an archive (archive.md §4). Names, targets, users and xattrs are bytes; times ns. */
import type { MsgValue } from '../msgpack.js'
import type { ChunkList } from './chunk-list.js'

export interface Item {
  path: Buffer
  /** Complete st_mode, Linux values. */
  mode: number
  uid: number
  gid: number
  /** null: not known. */
  user: Buffer | null
  group: Buffer | null
  mtimeNs: bigint
  atimeNs?: bigint
  ctimeNs?: bigint
  birthtimeNs?: bigint
  chunks?: ChunkList
  chunksHealthy?: ChunkList
  size?: number
  hardlinkMaster?: boolean
  /** Symlink target, or stored path of the first hard link: decide by mode. */
  source?: Buffer
  rdev?: number
  /** Name as a byte string (text.ts) -> value; null is an empty value. */
  xattrs?: Map<string, Buffer | null>
  aclAccess?: Buffer
  aclDefault?: Buffer
  aclExtended?: Buffer
  aclNfs4?: Buffer
  bsdflags?: number
  part?: number
  /** Keys this program does not know, kept when an item is written again. Byte-string keys. */
  unknown?: Map<string, MsgValue>
}
