/**
 * Records of the journal of staged metadata:
 *
 *   uint32le length of the payload, uint32le CRC-32 of the payload, payload = msgpack array [kind, …]
 *
 * Where the repository is encrypted the payload is sealed (an envelope of crypto.md §3, with keys of the staging folder): names, times,
 * xattrs. An envelope begins with its type, which no msgpack array does.
 */
import { crc32 } from 'node:zlib'
import type { Key } from '../../engine/crypto/key.js'
import { type MsgValue, MsgWriter } from '../../engine/msgpack.js'

export const headerBytes = 8

/** What a record says; the numbers are on disk. */
export const recordKind = {
  made: 1,
  linked: 2,
  unlinked: 3,
  moved: 4,
  exchanged: 5,
  attributes: 6,
  xattr: 7,
  dropped: 8,
  committed: 9,
  changed: 10,
  forgotten: 11,
  extents: 12,
  cut: 13,
  opening: 14,
  settled: 15,
  placed: 16,
  stashed: 17,
  takenOver: 18,
  base: 19,
  origin: 20,
  certain: 21,
  whole: 22,
  mark: 23,
  synced: 24,
  spoolGone: 25,
  changing: 26,
  undone: 27,
} as const

/** What seals records. */
export interface RecordSeal {
  readonly key: Key
  /** Called before the first record is sealed. Nobody else ever used the nonce that it returns, or one that follows. */
  takeNonces(): bigint
}

/** The longest payload that is read, and the longest that is looked for behind damage. */
export const maxRecordBytes = 16 << 20, maxSearchedRecordBytes = 65536

export class RecordEncoder {
  readonly #writer = new MsgWriter(1024)
  readonly #seal: RecordSeal | undefined
  #nonce: bigint | undefined
  #memory = Buffer.alloc(4096)

  constructor(seal: RecordSeal | undefined) {
    this.#seal = seal
  }

  /** Before anything is told later: a full disk may have no room for it then. Host errors. */
  prepare(): void {
    if (this.#seal) this.#nonce ??= this.#seal.takeNonces()
  }

  /** The record, in memory that the next one takes. */
  encode(fields: readonly MsgValue[]): Buffer {
    const writer = this.#writer
    writer.clear()
    writer.verbatim(zeroHeader)
    writer.arrayHeader(fields.length)
    for (const field of fields) writer.value(field)
    const record = this.#seal ? this.#sealed(this.#seal, writer.bytes.subarray(headerBytes)) : writer.bytes
    record.writeUInt32LE(record.length - headerBytes, 0)
    record.writeUInt32LE(crc32(record.subarray(headerBytes)), 4)
    return record
  }

  #sealed({ key, takeNonces }: RecordSeal, payload: Uint8Array): Buffer {
    this.#nonce ??= takeNonces()
    const length = headerBytes + key.sealedLength(payload.length)
    if (this.#memory.length < length) this.#memory = Buffer.alloc(2 * length)
    key.sealInto(payload, this.#nonce, this.#memory, headerBytes)
    this.#nonce += BigInt(Math.ceil(payload.length / 16))
    return this.#memory.subarray(0, length)
  }
}

const zeroHeader = Buffer.alloc(headerBytes)
