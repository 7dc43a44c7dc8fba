/** BLAKE2b, and what libsodium does here: memory that is locked and wiped, comparison in constant time. */
import { createRequire } from 'node:module'
import { native } from '../native.js'

interface Sodium {
  crypto_generichash_batch(out: Buffer, inputs: Uint8Array[]): void
  sodium_malloc(size: number): Buffer
  sodium_memzero(buffer: Uint8Array): void
  sodium_memcmp(a: Uint8Array, b: Uint8Array): boolean
}

let loaded: Sodium | undefined
const sodium = (): Sodium => (loaded ??= createRequire(import.meta.url)('sodium-native') as Sodium)

/** 32 bytes: BLAKE2b-256 of a key and data one after the other, without key parameter (crypto.md §3). */
export function blake2b256(key: Uint8Array, data: Uint8Array): Buffer {
  const hash = Buffer.allocUnsafe(32)
  native().blake2b256(key, data, hash)
  return hash
}

/** The same by libsodium, which the addon is held against. It takes no shared memory. */
export function blake2b256BySodium(key: Uint8Array, data: Uint8Array): Buffer {
  const hash = Buffer.allocUnsafe(32)
  sodium().crypto_generichash_batch(hash, [key, data])
  return hash
}

/** Guarded memory that is never swapped; wipe it when done. */
export function secureBuffer(size: number): Buffer {
  return sodium().sodium_malloc(size)
}

/** A copy in guarded memory; the source is wiped. */
export function secured(secret: Uint8Array): Buffer {
  const copy = secureBuffer(secret.length)
  copy.set(secret)
  wipe(secret)
  return copy
}

export function wipe(secret: Uint8Array): void {
  if (secret.length > 0) sodium().sodium_memzero(secret)
}
