/**
 * Encryption of files that are written and read at any place: AES-256-XTS in units of 4 KiB, as disks are encrypted. It keeps secret, it does
 * not authenticate; two states of a file show which blocks of 16 bytes differ. For what waits on this machine's disk, never for a repository.
 *
 * A file of `size` bytes lies on disk as whole blocks, the last one filled up with zeros, and as many bytes of zeros behind them as were
 * filled up: so its length alone tells `size`. Blocks of zeros on disk are holes and stand for zeros.
 */
import { createCipheriv, createDecipheriv, type KeyObject } from 'node:crypto'
import { native, type NativeXts } from '../native.js'
import { wipe } from './blake2b.js'

export const fileKeyBytes = 64
export const fileBlockBytes = 16
const unitBytes = 4096

/** Length on disk of a file of `size` bytes. */
export function sealedFileLength(size: number): number {
  const whole = Math.ceil(size / fileBlockBytes) * fileBlockBytes
  return 2 * whole - size
}

/** Size of the file that has this length on disk. */
export function sealedFileSize(length: number): number {
  return Math.max(0, length - 2 * (length % fileBlockBytes))
}

/** For one thread. `file`: a number that no two files of the same key share; `position` and lengths are multiples of fileBlockBytes. */
export class FileCipher {
  readonly #native: NativeXts | undefined
  readonly #key: KeyObject

  /** `plainCrypto`, for tests: not by way of the addon. */
  constructor(key: KeyObject, plainCrypto = false) {
    this.#key = key
    if (plainCrypto) return
    const raw = key.export()
    try {
      this.#native = native().makeXts(raw)
    } finally {
      wipe(raw)
    }
  }

  /** Encrypts all of `from` to the start of `to`. */
  seal(file: number, position: number, from: Uint8Array, to: Uint8Array): void {
    if (this.#native) native().xtsCrypt(this.#native, false, file, position, from, to)
    else this.#units(false, file, position, from, to)
  }

  open(file: number, position: number, from: Uint8Array, to: Uint8Array): void {
    if (this.#native) native().xtsCrypt(this.#native, true, file, position, from, to)
    else this.#units(true, file, position, from, to)
  }

  /** The same through node:crypto. */
  #units(open: boolean, file: number, position: number, from: Uint8Array, to: Uint8Array): void {
    const tweak = Buffer.alloc(16)
    tweak.writeBigUInt64LE(BigInt(file), 0)
    for (let at = 0; at < from.length; ) {
      const skip = (position + at) % unitBytes
      const length = Math.min(unitBytes - skip, from.length - at)
      tweak.writeBigUInt64LE(BigInt(Math.floor((position + at) / unitBytes)), 8)
      const cipher = open ? createDecipheriv('aes-256-xts', this.#key, tweak) : createCipheriv('aes-256-xts', this.#key, tweak)
      const whole = Buffer.alloc(skip + length)
      const part = from.subarray(at, at + length)
      whole.set(part, skip)
      const made = cipher.update(whole).subarray(skip)
      if (open) for (let block = 0; block < length; block += fileBlockBytes) if (isZero(part, block)) made.fill(0, block, block + fileBlockBytes)
      to.set(made, at)
      at += length
    }
  }
}

function isZero(bytes: Uint8Array, from: number): boolean {
  for (let at = from; at < from + fileBlockBytes; at++) if (bytes[at] !== 0) return false
  return true
}
