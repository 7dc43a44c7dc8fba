/**
 * Pieces of memory sealed for a file of the client's own, and back: what a byte worker does for things that are kept beside the
 * repository (fs/stored-trees.ts). Each file has a key of its own, derived from the repository's key and the file's random salt, so
 * the numbers of its blocks can be the nonces: no block of it is sealed twice, and the repository's counter is not touched.
 *
 *   block = AES-256-GCM ciphertext of (payload: 00 00 plaintext, or 01 00 lz4 block) | tag 16     nonce: number of the block, 12 bytes LE
 */
import { createCipheriv, createDecipheriv, type KeyObject } from 'node:crypto'
import { readSync } from 'node:fs'
import { lz4 } from '../codec/lz4.js'
import { completePayload } from '../codec/none.js'
import { decompress } from '../codec/decompress.js'
import type { Key } from '../crypto/key.js'
import type { MemoryBlock, SealJob, SealResult, UnsealJob, UnsealResult } from './jobs.js'

const tagBytes = 16

export type Sealing = Omit<SealJob, 'job' | 'kind'>
export type Unsealing = Omit<UnsealJob, 'job' | 'kind'>

/** Key and purpose of one file. */
export interface SealedFile {
  /** 32 random bytes, new for each file that is written. */
  readonly salt: Uint8Array
  readonly purpose: string
}

export function sealBlock(key: KeyObject, number: number, plain: Uint8Array): Buffer {
  const payload = completePayload(lz4.compress(plain) as Uint8Array, plain)
  const cipher = createCipheriv('aes-256-gcm', key, nonceOf(number))
  return Buffer.concat([cipher.update(payload), cipher.final(), cipher.getAuthTag()])
}

/** The plaintext; throws if it is not what was sealed under this key as this number. */
export function unsealBlock(key: KeyObject, number: number, sealed: Uint8Array, size?: number): Buffer {
  if (sealed.length < tagBytes) throw new Error('a sealed block is too short')
  const decipher = createDecipheriv('aes-256-gcm', key, nonceOf(number), { authTagLength: tagBytes })
  decipher.setAuthTag(sealed.subarray(sealed.length - tagBytes))
  const payload = decipher.update(sealed.subarray(0, sealed.length - tagBytes))
  decipher.final()
  return decompress(payload, size === undefined ? {} : { size }) as Buffer
}

export function seal(key: Key, job: SealJob | Sealing): Omit<SealResult, 'job' | 'kind'> {
  const fileKey = key.purposeKey(job.salt, job.purpose)
  const sealed = job.blocks.map((block, index) => {
    const plain = Buffer.from(block.memory, block.offset, block.length)
    return sealBlock(fileKey, job.first + index, block.delta ? differences(plain) : plain)
  })
  const lengths = Uint32Array.from(sealed, ({ length }) => length)
  const data = new Uint8Array(new ArrayBuffer(lengths.reduce((sum, length) => sum + length, 0)))
  let at = 0
  for (const block of sealed) {
    data.set(block, at)
    at += block.length
  }
  return { data, lengths }
}

/** Fills the memory of the blocks; throws, and may have filled some, if they are not what was sealed. */
export function unseal(key: Key, job: UnsealJob | Unsealing): Omit<UnsealResult, 'job' | 'kind'> {
  const fileKey = key.purposeKey(job.salt, job.purpose)
  let position = job.position
  for (const [index, { memory, offset, length, delta }] of job.blocks.entries()) {
    const plain = unsealBlock(fileKey, job.first + index, readAt(job.fd, position, job.lengths[index]!), length)
    position += job.lengths[index]!
    const target = new Uint8Array(memory, offset, length)
    target.set(plain)
    if (delta) addUp(new Uint32Array(memory, offset, length / 4))
  }
  return {}
}

function nonceOf(number: number): Buffer {
  const nonce = Buffer.alloc(12)
  nonce.writeUIntLE(number, 0, 6)
  return nonce
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
export function readAt(fd: number, position: number, length: number): Buffer {
  const bytes = Buffer.allocUnsafe(length)
  for (let done = 0; done < length; ) {
    const count = readSync(fd, bytes, done, length - done, position + done)
    if (count === 0) throw new Error('a sealed file is cut off')
    done += count
  }
  return bytes
}

/** Memory in blocks; `delta` for columns of 32-bit numbers that mostly go up. */
export function blocksOf(memory: SharedArrayBuffer, offset: number, length: number, delta: boolean): MemoryBlock[] {
  const blocks: MemoryBlock[] = []
  for (let at = 0; at < length; at += blockBytes) blocks.push({ memory, offset: offset + at, length: Math.min(blockBytes, length - at), delta })
  return blocks
}

const blockBytes = 1 << 20
