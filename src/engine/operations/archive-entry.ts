/** What an archive is made of: entries in its order, each an item, where its bytes come from, and who is told how it fared. */
import type { ChunkList } from '../archive/chunk-list.js'
import type { Item } from '../archive/item.js'
import type { ByteSource } from '../chunker/chunker.js'
import type { FileError } from '../store/jobs.js'
import type { FileSeal } from '../store/sealed-file.js'

/** Where an item's bytes come from. */
export type Content =
  /**
   * A regular file, opened here; `size`, `ino` and `dev` as lstat saw them: another one in its place is a failure. `special`: read whatever it is (--read-special). `seal`: it lies
   * encrypted on disk, and `size` is that of its content. `position`: it is a part of that file, and no more than one chunk (`ino` is not
   * looked at then).
   */
  | { readonly kind: 'file'; readonly path: Buffer; readonly size: number; readonly ino: bigint; readonly dev?: bigint; readonly special?: boolean; readonly seal?: FileSeal; readonly position?: number }
  | { readonly kind: 'source'; readonly source: ByteSource; readonly size?: number }
  /** All of a small file: one chunk, none if it is empty. */
  | { readonly kind: 'bytes'; readonly bytes: Buffer }
  /** Stored already, or about to be: then the promise must not fail before it is awaited in its turn. */
  | { readonly kind: 'chunks'; readonly chunks: ChunkList | Promise<ChunkList> }
  /** One after the other: chunks that are in the repository, and sources that are cut on their own. */
  | { readonly kind: 'parts'; readonly parts: readonly (ChunkList | ByteSource)[] }

export type Outcome =
  | { readonly kind: 'stored'; readonly changed: boolean }
  | { readonly kind: 'failed'; readonly error: FileError }

export interface ArchiveEntry {
  /** Without chunks and size where there is content. Absent: only `done` is called, in order. */
  readonly item?: Item
  readonly content?: Content
  /** What becomes of the chunks when they are stored, before the item is written. */
  readonly revise?: (chunks: ChunkList) => Promise<ChunkList>
  /** Called in the order of the entries, when the item was written or could not be. */
  readonly done?: (outcome: Outcome) => void
}

/** In the archive's order; in runs where there are many that need no waiting for. */
export type ArchiveEntries = Iterable<ArchiveEntry> | AsyncIterable<Iterable<ArchiveEntry>>
