/** BLAKE2b, and what libsodium does here: memory that is locked and wiped, comparison in constant time. */
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { native } from '../native.js'

const noKey = Buffer.alloc(0)

/** Of the package's addon; memory comes as an ArrayBuffer. */
interface Sodium {
  crypto_generichash_batch(out: Buffer, inputs: Uint8Array[], keyed: boolean, key: Uint8Array): number
  sodium_malloc(size: number): ArrayBuffer
  sodium_memzero(buffer: Uint8Array): void
}

let loaded: Sodium | undefined
const sodium = (): Sodium => (loaded ??= load())

/** The package tries a dozen places before it finds its addon, which takes longer than all that is asked of it: the usual one goes first. */
function load(): Sodium {
  const require = createRequire(import.meta.url)
  const folder = dirname(require.resolve('sodium-native'))
  try {
    return require(join(folder, 'prebuilds', `${process.platform}-${process.arch}`, 'sodium-native.node')) as Sodium
  } catch {
    return require(join(folder, 'binding.js')) as Sodium
  }
}

/** Loads libsodium now, for who has time. */
export function readySodium(): void {
  sodium()
}

/** 32 bytes: BLAKE2b-256 of a key and data one after the other, without key parameter (crypto.md §3). */
export function blake2b256(key: Uint8Array, data: Uint8Array): Buffer {
  const hash = Buffer.allocUnsafe(32)
  native().blake2b256(key, data, hash)
  return hash
}

/** The same by libsodium, which the addon is held against. It takes no shared memory. */
export function blake2b256BySodium(key: Uint8Array, data: Uint8Array): Buffer {
  const hash = Buffer.allocUnsafe(32)
  if (sodium().crypto_generichash_batch(hash, [key, data], false, noKey) !== 0) throw new Error('BLAKE2b failed')
  return hash
}

/** Guarded memory that is never swapped; wipe it when done. */
export function secureBuffer(size: number): Buffer {
  return Buffer.from(sodium().sodium_malloc(size))
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
