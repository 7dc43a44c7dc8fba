/**
 * What the FUSE thread and the engine thread say to each other. All of it survives structured clone; SharedArrayBuffers are
 * shared, not copied. The FUSE thread asks with a number of its own, the engine thread answers each request once, in any
 * order, and pushes what nobody asked for. Delivery towards the FUSE thread is a message on a MessagePort followed by
 * a signal on its wake-up descriptor (EngineChannel), because that thread blocks in the kernel.
 */
import type { LogLevel } from '../engine/log.js'
import type { FilePiece } from '../engine/store/jobs.js'
import type { FileSeal } from '../engine/store/sealed-file.js'
import type { ArchiveTreeData } from './tree-columns.js'
import type { RootListing } from './root-listing.js'
import type { NodeAttributes, StatFs } from './types.js'

/** One archive as the root shows it, or all in one (`merged`). */
export interface ArchiveInfo {
  /** Bytes of the name in the manifest. */
  readonly name: Uint8Array
  /** 64 hex digits: two lists with the same id mean the same archive. Of `merged` see versions.ts. */
  readonly id: string
  /** No archive, but all archives as one tree of their versions (mount.md §5). */
  readonly merged?: boolean
  /** Start of the archive. */
  readonly timeNs: bigint
}

/** Facts from the archive's metadata, for the xattrs `user.borgfs.archive.*`. Text is bytes. */
export interface ArchiveFacts {
  readonly comment: Uint8Array
  readonly hostname: Uint8Array
  readonly username: Uint8Array
  readonly originalSize?: number
  readonly fileCount?: number
}

/** What the FUSE thread must know before the kernel's first request. Made by the engine thread, see mount-service.ts. */
export interface MountView {
  readonly kind: 'repository' | 'archive'
  /** In the order the root lists them; exactly one for kind archive. */
  readonly archives: readonly ArchiveInfo[]
  /** Owner and time of directories that no archive describes. */
  readonly uid: number
  readonly gid: number
  readonly umask: number
  readonly mountTimeNs: bigint
  /** Bytes of decoded chunks kept. */
  readonly cacheBytes: number
  readonly allowDamagedFiles: boolean
}

/** What can be told of an archive without reading it whole. */
export interface ArchiveHead {
  readonly facts: ArchiveFacts
  /** Attributes of the item `.` if the archive begins with it: they are those of the archive's directory. */
  readonly root: NodeAttributes | undefined
  /** The names in it, where they are known before its tree is there. */
  readonly listing?: RootListing | undefined
}

/** Chunks wanted: `ids` holds 32 bytes each, `sizes` the plaintext lengths. */
export interface ChunksRequest {
  readonly kind: 'chunks'
  readonly ids: Uint8Array
  readonly sizes: Uint32Array
  /** Numbers of the slab's pages (chunk-cache.ts) that they go to; none if they are to come in the reply's data. */
  readonly pages: Uint32Array
  /** Where each begins in the pages, in bytes, as if they lay side by side. */
  readonly starts: Uint32Array
  /** Somebody waits; false for what is only expected to be wanted. */
  readonly urgent: boolean
}

export interface ChunksReply {
  /** If there were no pages: chunks back to back in the order asked; a failed one takes no bytes. */
  readonly data: Uint8Array
  readonly failures: readonly ChunkFailure[]
}
export interface ChunkFailure {
  /** Position in the request. */
  readonly index: number
  readonly code: string
  readonly message: string
}

/**
 * A staged tree to be made an archive. `staged` is what incoming/ froze, in a form that only fs/incoming reads;
 * `exactName` is set for a rename to the root, else the name is made from the template.
 */
export interface CommitRequest {
  readonly kind: 'commit'
  readonly staged: unknown
  readonly exactName?: Uint8Array
  /** Archive made of an earlier state of the tree: deleted in the same transaction. Ignored if it is not there any more. */
  readonly replaces?: {
    /** ArchiveInfo.id. */
    readonly id: string
    /** Without exactName the new archive takes over the name. */
    readonly keepName: boolean
    /** Packed ids of chunks that are not to go with it: staged files are made of them, wholly or in part. */
    readonly needed: Uint8Array
  }
  /** Somebody waits for the result: the lock is waited for as long as --lock-wait says, else only for a moment. */
  readonly patient: boolean
}
export interface CommitReply {
  readonly archive: ArchiveInfo
  /** The complete list with it; added by MountService. */
  readonly archives?: readonly ArchiveInfo[]
  readonly numbers: CommitNumbers
}
export interface CommitNumbers {
  readonly fileCount: number
  readonly originalSize: number
  /** Bytes that the repository grew by. */
  readonly newBytes: number
}
/**
 * Contents of staged files to be cut into chunks (incoming/cutter.ts): small files, each of them one chunk, or a range of a large one. They
 * must not be removed before the answer; what changes in them meanwhile makes the answer worthless, and is for whoever asked to notice.
 */
export interface CutRequest {
  readonly kind: 'cut'
  readonly files?: readonly FilePiece[]
  readonly range?: {
    readonly path: string
    readonly seal: FileSeal | undefined
    /** Where a chunk begins. */
    readonly from: number
    readonly to: number
    /** The file ends at `to`; else the chunk that would end there is left. */
    readonly final: boolean
  }
}
export interface CutReply {
  /** Extents: of the range, or one for each file that was stored, whatever their offsets. */
  readonly rows: Uint8Array
  /** For each chunk: in the repository, or in the stash; or no row, because the file is empty or cannot be read. */
  readonly states: Uint8Array
  /** What the stash takes on disk. */
  readonly stashBytes: number
}
export const cutKnown = 1, cutStashed = 2
/** A range was cut, and what its chunks are is still to come: its last one ends at `end`. */
export interface CutProgress {
  readonly kind: 'cut'
  readonly end: number
}

/** How far a commit is. `holder`: HOST@PID of who has the lock, where that is known. */
export type CommitProgress =
  | { readonly kind: 'waiting'; readonly holder: string | undefined }
  | { readonly kind: 'committing'; readonly percent: number }

export type Progress = CommitProgress | CutProgress

/** An archive renamed, deleted, or given a comment, in a transaction of its own (incoming.md §6). `archive` is ArchiveInfo.id. */
export interface ArchiveChangeRequest {
  readonly kind: 'change-archive'
  readonly archive: string
  readonly change: ArchiveChange
}
export type ArchiveChange =
  | { readonly kind: 'rename'; readonly name: Uint8Array }
  | { readonly kind: 'comment'; readonly comment: Uint8Array }
  /** `needed`: as of CommitRequest. */
  | { readonly kind: 'delete'; readonly needed: Uint8Array }
export interface ArchiveChangeReply {
  /** What it is now; its id is another one. Absent if it was deleted. */
  readonly archive?: ArchiveInfo | undefined
  /** The complete list after it; added by MountService. */
  readonly archives?: readonly ArchiveInfo[]
}

export type EngineRequest =
  /** First of all; hands over the slab that decoded chunks are written to. */
  | { readonly kind: 'start'; readonly slab: SharedArrayBuffer }
  /** `archive` is ArchiveInfo.id. */
  | { readonly kind: 'head'; readonly archive: string }
  | { readonly kind: 'tree'; readonly archive: string }
  /** Chunk rows of a tree that came without. */
  | { readonly kind: 'tree-chunks'; readonly archive: string }
  | ArchiveChangeRequest
  /** Stored bytes that only this archive refers to; costs a pass over all archives. */
  | { readonly kind: 'deduplicated-size'; readonly archive: string }
  | ChunksRequest
  | CommitRequest
  | CutRequest
  /** Drops stashed chunks that are not among `ids`. `own`: only those that this mount put there. */
  | { readonly kind: 'keep-stashed'; readonly ids: Uint8Array; readonly own: boolean }
  | { readonly kind: 'statfs' }
  /** Makes descriptors durable (fdatasync), in this order, and the stash before them. They stay the asker's and open until the answer. */
  | { readonly kind: 'sync'; readonly fds: readonly number[] }
  /** Makes everything durable that was written to the file system of a folder. */
  | { readonly kind: 'sync-folder'; readonly folder: string }

export interface EngineReplies {
  start: undefined
  head: ArchiveHead
  tree: ArchiveTreeData
  'tree-chunks': Uint8Array
  'change-archive': ArchiveChangeReply
  'deduplicated-size': number
  chunks: ChunksReply
  commit: CommitReply
  cut: CutReply
  'keep-stashed': number
  statfs: StatFs
  sync: undefined
  'sync-folder': undefined
}

/** An error on its way between threads: `code` is an errno's name as fs/errno.ts chose it. */
export interface WireError {
  readonly code: string
  readonly msgid: string | undefined
  readonly message: string
}

/** FUSE thread -> engine thread. */
export type ToEngine =
  | { readonly type: 'request'; readonly id: number; readonly request: EngineRequest }
  | { readonly type: 'log'; readonly level: LogLevel; readonly topic: string; readonly message: string }
  /** Answer to `finish`: a sentence for each tree that stays staged. */
  | { readonly type: 'finished'; readonly kept: readonly string[] }

/** Engine thread -> FUSE thread. */
export type ToFuse =
  | { readonly type: 'reply'; readonly id: number; readonly value: unknown }
  | { readonly type: 'error'; readonly id: number; readonly error: WireError }
  /** Any number of them before the reply to a commit, at most one before that to a range to be cut. */
  | { readonly type: 'progress'; readonly id: number; readonly progress: Progress }
  /** The list changed: the complete new one. */
  | { readonly type: 'archives'; readonly archives: readonly ArchiveInfo[] }
  /** Unmounting was asked for (umount, a signal): commit what is staged, then say `finished`. */
  | { readonly type: 'finish' }

/** One end's way out. The engine thread's one also signals the wake-up descriptor. */
export interface EngineChannel<Out> {
  post(message: Out, transfer?: readonly ArrayBuffer[]): void
}
