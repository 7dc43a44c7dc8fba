/**
 * Counter values for sealing (crypto.md §4): one strictly increasing counter per run, never derived from an object just read,
 * inside a range that was set aside durably before its first use.
 */
import { nonceReservation } from '../constants.js'
import { NonceError } from './errors.js'

/** A durable high-water mark: the first value that is not reserved. */
export interface NonceStore {
  freeNonce(): Promise<bigint | undefined>
  /** Compare and set; throws if the stored value is not `expected`. */
  reserveNonces(next: bigint, expected: bigint | undefined): Promise<void>
}

const counterEnd = (1n << 64n) - 1n

export class NonceSource {
  readonly #repository: NonceStore
  readonly #local: NonceStore
  #manifestBound: bigint
  #next = 0n
  #end: bigint | undefined
  #reserving: Promise<void> | undefined

  /** `manifestBound`: first value that the manifest object cannot have used. */
  constructor(repository: NonceStore, local: NonceStore, manifestBound: bigint) {
    this.#repository = repository
    this.#local = local
    this.#manifestBound = manifestBound
  }

  /** First of `blocks` values of 16 bytes each, never handed out before. A promise only when a reservation has to be made. */
  take(blocks: number): bigint | Promise<bigint> {
    const count = BigInt(blocks)
    return this.#reserving === undefined && this.#fits(count) ? this.#advance(count) : this.#takeLater(count)
  }

  /** The same out of what is reserved already, which needs no lock; undefined if that is not enough. */
  takeReserved(blocks: number): bigint | undefined {
    const count = BigInt(blocks)
    return this.#reserving === undefined && this.#fits(count) ? this.#advance(count) : undefined
  }

  #fits(count: bigint): boolean {
    return this.#end !== undefined && this.#next + count <= this.#end
  }

  #advance(count: bigint): bigint {
    const start = this.#next
    this.#next += count
    return start
  }

  async #takeLater(count: bigint): Promise<bigint> {
    while (this.#reserving !== undefined || !this.#fits(count)) {
      this.#reserving ??= this.#reserve(count).finally(() => (this.#reserving = undefined))
      await this.#reserving
    }
    return this.#advance(count)
  }

  async #reserve(count: bigint): Promise<void> {
    const repository = await this.#repository.freeNonce()
    const local = await this.#local.freeNonce()
    let start = this.#manifestBound
    for (const mark of [repository, local, this.#end]) if (mark !== undefined && mark > start) start = mark
    const end = start + count + nonceReservation
    if (end >= counterEnd) throw new NonceError('The nonce space of this key is used up. Create a new repository.')
    await this.#repository.reserveNonces(end, repository)
    await this.#local.reserveNonces(end, local)
    this.#next = start
    this.#end = end
  }
}

/** 16 lower-case hex digits without a newline, as Borg 1.2 demands. */
export function formatNonce(value: bigint): string {
  return value.toString(16).padStart(16, '0')
}

/** NonceError names the file if its content is no nonce. White space around it is tolerated. */
export function parseNonce(text: string, file: string): bigint {
  const digits = text.trim()
  if (!/^[0-9a-fA-F]{16}$/.test(digits)) throw new NonceError(`The nonce file ${file} is invalid. Restore or remove it: the other copy of the nonce is used then.`)
  return BigInt(`0x${digits}`)
}
