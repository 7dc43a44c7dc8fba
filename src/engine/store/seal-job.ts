/**
 * Pieces of memory sealed for a file of the client's own, and back: what a byte worker does for things that are kept beside the
 * repository (fs/stored-trees.ts). Each file has a key of its own, derived from the repository's key and the file's random salt, so
 * the numbers of its blocks can be the nonces: no block of it is sealed twice, and the repository's counter is not touched.
 *
 *   block = envelope (crypto.md §3) of the payload: 00 00 plaintext, or 01 00 lz4 block     nonce: number of the block << 32
 */
import { readSync } from 'node:fs'
import { lz4 } from '../codec/lz4.js'
import { plainHeader } from '../codec/none.js'
import { idBytes } from '../constants.js'
import { IntegrityError } from '../errors.js'
import { native } from '../native.js'
import type { Key } from '../crypto/key.js'
import { purposeKey } from '../crypto/keys.js'
import type { MemoryBlock, SealJob, SealResult, UnsealJob, UnsealResult } from './jobs.js'

/** What was read, and what was in it: used again and again. */
let sealedScratch = Buffer.alloc(0), payloadScratch = Buffer.alloc(0)
const noId = Buffer.alloc(idBytes), lz4Header = Buffer.from([1, 0])

export type Sealing = Omit<SealJob, 'job' | 'kind'>
export type Unsealing = Omit<UnsealJob, 'job' | 'kind'>

/** The key of the file that the job before was about: a file's jobs mostly follow each other. */
let lastFile: { readonly key: Key; readonly salt: Uint8Array; readonly purpose: string; readonly fileKey: Key } | undefined

function fileKeyOf(key: Key, { salt, purpose }: Sealing | SealJob | UnsealJob | Unsealing): Key {
  if (lastFile?.key !== key || lastFile.purpose !== purpose || Buffer.compare(lastFile.salt, salt) !== 0) {
    lastFile?.fileKey.wipe()
    lastFile = { key, salt: Buffer.from(salt), purpose, fileKey: purposeKey(key, salt, purpose) }
  }
  return lastFile.fileKey
}

/** A block for a file with this key, into `target`, which has room for maxSealedBytes; its length. */
function sealInto(fileKey: Key, number: number, plain: Uint8Array, target: Buffer, offset: number): number {
  if (payloadScratch.length < plain.length) payloadScratch = Buffer.allocUnsafeSlow(plain.length)
  // No longer than it was, or it is not worth it.
  const length = native().lz4Encode(plain, payloadScratch.subarray(0, plain.length))
  return length < 0 ? fileKey.sealInto(plain, nonceOf(number), target, offset, plainHeader) : fileKey.sealInto(payloadScratch.subarray(0, length), nonceOf(number), target, offset, lz4Header)
}

/** A block by itself, not compressed. */
export function sealBlock(fileKey: Key, number: number, plain: Uint8Array): Buffer {
  const target = Buffer.allocUnsafe(maxSealedBytes(fileKey, plain.length))
  return target.subarray(0, fileKey.sealInto(plain, nonceOf(number), target, 0, plainHeader))
}

function maxSealedBytes(fileKey: Key, length: number): number {
  return fileKey.sealedLength(lz4.maxPayload(length))
}

/** In scratch memory. Throws if it is not what was sealed under this key as this number. */
function openPayload(fileKey: Key, number: number, sealed: Buffer): Buffer {
  if (payloadScratch.length < sealed.length) payloadScratch = Buffer.allocUnsafeSlow(sealed.length)
  const payload = fileKey.open(sealed, noId, payloadScratch)
  if (fileKey.nonceOf(sealed) !== nonceOf(number)) throw new IntegrityError('a sealed block stands in the place of another')
  return payload
}

/** The plaintext of what sealBlock made. */
export function unsealBlock(fileKey: Key, number: number, sealed: Buffer): Buffer {
  return Buffer.from(openPayload(fileKey, number, sealed).subarray(plainHeader.length))
}

function unsealInto(fileKey: Key, number: number, sealed: Buffer, target: Uint8Array): void {
  const payload = openPayload(fileKey, number, sealed)
  const content = payload.subarray(plainHeader.length)
  if (payload[0] !== 0) {
    if (native().lz4Decode(content, target) !== target.length) throw new IntegrityError('a sealed block has another length')
  } else {
    if (content.length !== target.length) throw new IntegrityError('a sealed block has another length')
    target.set(content)
  }
}

/** Bytes that blocks may take when they are sealed under a file's key. */
export function roomToSeal(fileKey: Key, blocks: readonly { readonly length: number }[]): number {
  return blocks.reduce((sum, { length }) => sum + maxSealedBytes(fileKey, length), 0)
}

/** Into the job's output. */
export function seal(key: Key, job: SealJob | Sealing): Omit<SealResult, 'job' | 'kind'> {
  const fileKey = fileKeyOf(key, job)
  const lengths = new Uint32Array(job.blocks.length)
  const output = Buffer.from(job.output)
  let at = 0
  for (const [index, { memory, offset, length, delta }] of job.blocks.entries()) {
    const plain = Buffer.from(memory, offset, length)
    at += lengths[index] = sealInto(fileKey, job.first + index, delta ? differences(plain) : plain, output, at)
  }
  return { lengths }
}

/** Fills the memory of the blocks; throws, and may have filled some, if they are not what was sealed. */
export function unseal(key: Key, job: UnsealJob | Unsealing): Omit<UnsealResult, 'job' | 'kind'> {
  const fileKey = fileKeyOf(key, job)
  let position = job.position
  for (const [index, { memory, offset, length, delta }] of job.blocks.entries()) {
    const sealedBytes = job.lengths[index]!
    if (sealedBytes > maxSealedBytes(fileKey, length)) throw new IntegrityError('a sealed block has another length')
    if (sealedScratch.length < sealedBytes) sealedScratch = Buffer.allocUnsafeSlow(maxSealedBytes(fileKey, blockBytes))
    const sealed = sealedScratch.subarray(0, sealedBytes)
    readInto(job.fd, position, sealed)
    position += sealedBytes
    unsealInto(fileKey, job.first + index, sealed, new Uint8Array(memory, offset, length))
    if (delta) addUp(new Uint32Array(memory, offset, length / 4))
  }
  return {}
}

function nonceOf(number: number): bigint {
  return BigInt(number) << 32n
}

/** What is numbered upwards becomes the same small number again and again, which lz4 then folds. */
function differences(plain: Buffer): Uint8Array {
  const values = new Uint32Array(plain.length / 4)
  new Uint8Array(values.buffer).set(plain)
  for (let at = values.length - 1; at > 0; at--) values[at]! -= values[at - 1]!
  return new Uint8Array(values.buffer)
}

function addUp(values: Uint32Array): void {
  let sum = 0
  for (let at = 0; at < values.length; at++) values[at] = sum = (sum + values[at]!) >>> 0
}

/** IO errors throw as they are; a file that ends too soon too. */
export function readInto(fd: number, position: number, into: Uint8Array): void {
  for (let done = 0; done < into.length; ) {
    const count = readSync(fd, into, done, into.length - done, position + done)
    if (count === 0) throw new IntegrityError('a sealed file is cut off')
    done += count
  }
}

/** Memory in blocks; `delta` for columns of 32-bit numbers that mostly go up. */
export function blocksOf(memory: SharedArrayBuffer, offset: number, length: number, delta: boolean): MemoryBlock[] {
  const blocks: MemoryBlock[] = []
  for (let at = 0; at < length; at += blockBytes) blocks.push({ memory, offset: offset + at, length: Math.min(blockBytes, length - at), delta })
  return blocks
}

const blockBytes = 1 << 20
