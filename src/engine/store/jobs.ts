/** What the engine thread and the byte workers say to each other (docs/architecture.md). */
import type { KeyMaterial } from '../crypto/key.js'
import type { SharedTable } from '../hashindex/hash-table.js'
import type { FileSeal } from './sealed-file.js'

/** Set once, and again whenever one of them changes. */
export interface WorkerSetup {
  readonly kind: 'setup'
  readonly material?: KeyMaterial
  readonly codec?: string
  readonly index?: SharedTable
  /** Memory of ProvenObjects. */
  readonly proven?: SharedArrayBuffer
}

/** Nothing is expected for a while: the worker keeps no memory for the next job. */
export interface WorkerRest {
  readonly kind: 'rest'
}

/** Plaintext in shared memory, or copied. */
export interface Piece {
  readonly memory: SharedArrayBuffer | Uint8Array
  readonly offset: number
  readonly length: number
}

/** A small file that the worker opens, reads and hashes itself. `size` is what lstat said; a file that grew is not stored. */
export interface FilePiece {
  readonly path: Uint8Array
  readonly size: number
  readonly ino: bigint
  readonly dev?: bigint | undefined
  /** It lies encrypted on disk; `size` is that of its content all the same. */
  readonly seal?: FileSeal
  /** It is a part of the file, which nobody else changes: offset in it. `ino` is not looked at. */
  readonly position?: number
}

export interface PackJob {
  readonly kind: 'pack'
  readonly job: number
  readonly pieces?: readonly Piece[]
  readonly files?: readonly FilePiece[]
  /** First of enough counter values for the longest possible payloads of all pieces. */
  readonly nonce: bigint
  /** Entries are written here. */
  readonly output: SharedArrayBuffer
  /** Seal even what the index knows: it turned out to be wrong. */
  readonly force: boolean
}

/** How a small file fared. */
export const fileOk = 0, fileFailed = 1, fileOther = 2, fileChanged = 3

export interface PackResult {
  readonly kind: 'packed'
  readonly job: number
  /** 32 bytes for each piece. */
  readonly ids: Uint8Array
  /** Plaintext bytes of each piece. */
  readonly sizes: Uint32Array
  /** Length of each piece's entry in `output`, one after the other; 0: the id was known. */
  readonly lengths: Uint32Array
  /** For files: fileOk, fileFailed (errno in errors), fileOther (no longer such a small file: take the long way), fileChanged (stored, but it changed meanwhile). */
  readonly states?: Uint8Array
  readonly errors?: readonly (FileError | undefined)[]
}
export interface FileError {
  readonly code: string
  readonly errno: number
  readonly syscall: string
  /** To be told instead of the operation and the errno's text. */
  readonly reason?: string
}

/** Entries to be read, verified and decoded. */
export interface OpenJob {
  readonly kind: 'open'
  readonly job: number
  readonly fds: Int32Array
  /** Offset and length of each whole entry in its file. */
  readonly offsets: Float64Array
  readonly entryLengths: Uint32Array
  readonly ids: Uint8Array
  /** Plaintext lengths; 0xffffffff where unknown. */
  readonly sizes: Uint32Array
  /** Where the plaintexts go, if given: for each entry the byte of `numbers`' pages, taken side by side, at which it starts. */
  readonly pages?: { readonly memory: SharedArrayBuffer; readonly numbers: Uint32Array; readonly starts: Uint32Array; readonly pageBytes: number }
  /** Plaintexts go here, back to back, if given; all of them come back in `data` instead if they do not fit. */
  readonly output?: SharedArrayBuffer
  /** Plaintexts go to this open file, each at its position, if given. `sparse`: what is all zero is left out. */
  readonly file?: { readonly fd: number; readonly positions: Float64Array; readonly sparse: boolean }
  /** Which plaintexts come back in `data`, if not all: none of them, or those that look like archive metadata. */
  readonly keep?: 'none' | 'archives'
  /** The CRC of each entry is verified as well: what a reader that trusts the MAC does not need. */
  readonly checkCrc?: boolean
}
export const unknownSize = 0xffffffff

export interface OpenResult {
  readonly kind: 'opened'
  readonly job: number
  /** Plaintexts back to back, unless the job said where they go. Failed ones take no bytes. */
  readonly data: Uint8Array
  readonly lengths: Uint32Array
  readonly failures: readonly OpenFailure[]
  /** With `keep`: numbers of the entries whose plaintexts are in `data`. */
  readonly kept?: readonly number[]
  /** Why the file of the job could not be written; what follows was not tried. */
  readonly fileError?: FileError
}
export interface OpenFailure {
  readonly index: number
  readonly message: string
  readonly msgid: string
  readonly exitCode: number
}

/** Entries to be read, verified, decoded, compressed with the worker's codec and sealed anew. */
export interface RepackJob {
  readonly kind: 'repack'
  readonly job: number
  readonly fds: Int32Array
  readonly offsets: Float64Array
  readonly entryLengths: Uint32Array
  readonly ids: Uint8Array
  /** Plaintext lengths: what nonces and room were set aside by. */
  readonly sizes: Uint32Array
  /** First of enough counter values for the longest possible payloads of all entries. */
  readonly nonce: bigint
  readonly output: SharedArrayBuffer
  /** Also what is compressed by the wanted method already. */
  readonly always: boolean
}

export interface RepackResult {
  readonly kind: 'repacked'
  readonly job: number
  /** Length of each new entry in `output`, one after the other; 0: the old one is as wanted. */
  readonly lengths: Uint32Array
  /** Entries that cannot be read stay as they are. */
  readonly failures: readonly OpenFailure[]
}

/** A piece of shared memory. `delta`: it holds 32-bit numbers, sealed as their differences. */
export interface MemoryBlock {
  readonly memory: SharedArrayBuffer
  readonly offset: number
  readonly length: number
  readonly delta: boolean
}

/** Blocks sealed for a file of the client's own (seal-job.ts). `first`: number of the first of them in the file. */
export interface SealJob {
  readonly kind: 'seal'
  readonly job: number
  readonly salt: Uint8Array
  readonly purpose: string
  readonly first: number
  readonly blocks: readonly MemoryBlock[]
  /** Gets the sealed blocks, back to back: roomToSeal says how much is enough. */
  readonly output: SharedArrayBuffer
}
export interface SealResult {
  readonly kind: 'sealed'
  readonly job: number
  readonly lengths: Uint32Array
}

/** The same blocks read from a file, where they lie one after the other from `position` on. The job fails if they are not what was sealed. */
export interface UnsealJob extends Omit<SealJob, 'kind' | 'output'> {
  readonly kind: 'unseal'
  readonly fd: number
  readonly position: number
  readonly lengths: Uint32Array
}
export interface UnsealResult {
  readonly kind: 'unsealed'
  readonly job: number
}

export type ToWorker = WorkerSetup | WorkerRest | PackJob | OpenJob | RepackJob | SealJob | UnsealJob
export interface JobFailed {
  readonly kind: 'failed'
  readonly job: number
  readonly message: string
}
export type FromWorker = PackResult | OpenResult | RepackResult | SealResult | UnsealResult | JobFailed
