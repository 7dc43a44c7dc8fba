/**
 * The hashes of a job that has many: MACs of objects and ids of plaintexts. A processor does several HMAC-SHA-256 side by side in less
 * time than one after the other, so whatever is independent is given here as soon as it is there, and taken as it gets ready.
 */
import { idMessage, macMessage, maxMessages, native, type NativeEnvelope } from '../native.js'

export interface Hashed<T> {
  readonly tag: T
  /** 32 bytes, valid until the next call of `next`; none for the MAC of a key that makes none. */
  readonly hash: Buffer
}

/** Bytes that were given must not change until their hash was taken. */
export interface Hashing<T> {
  /** Wants the MAC of a whole object: over nonce and ciphertext, wherever its own MAC stands. */
  mac(object: Uint8Array, tag: T): void
  /** Wants the id of a plaintext. */
  id(plaintext: Uint8Array, tag: T): void
  /** One that is ready, in no certain order; undefined if all were taken. To be called when as many are wanted as can be. */
  next(): Hashed<T> | undefined
}

const hashBytes = 32
const noHash = Buffer.alloc(0)

interface Message<T> {
  readonly kind: number
  readonly data: Uint8Array
  readonly tag: T
}

/** Whose messages are in the slots of an envelope. Another one that finds them taken begins its own anew, which only costs work. */
const owners = new WeakMap<NativeEnvelope, object>()

/** By the addon. */
export class ManyHashing<T> implements Hashing<T> {
  readonly #envelope: NativeEnvelope
  readonly #makesMacs: boolean
  /** MACs go first: what is ciphertext is mostly done with then, and still in the processor's cache. */
  readonly #macs: Message<T>[] = []
  readonly #ids: Message<T>[] = []
  /** In the addon, the oldest first; their slots, kinds and bytes beside them. */
  readonly #underWay: Message<T>[] = []
  readonly #slots = new Uint8Array(maxMessages)
  readonly #kinds = new Uint8Array(maxMessages)
  readonly #data: Uint8Array[] = []
  readonly #freeSlots = Array.from({ length: maxMessages }, (_, slot) => slot)
  readonly #hashes = Buffer.alloc(maxMessages * hashBytes)
  readonly #hashAt = Array.from({ length: maxMessages }, (_, index) => this.#hashes.subarray(index * hashBytes, (index + 1) * hashBytes))
  readonly #ready: Hashed<T>[] = []

  /** `makesMacs`: the key is one that encrypts. */
  constructor(envelope: NativeEnvelope, makesMacs: boolean) {
    this.#envelope = envelope
    this.#makesMacs = makesMacs
  }

  mac(object: Uint8Array, tag: T): void {
    if (this.#makesMacs) this.#macs.push({ kind: macMessage, data: object, tag })
    else this.#ready.push({ tag, hash: noHash })
  }

  id(plaintext: Uint8Array, tag: T): void {
    this.#ids.push({ kind: idMessage, data: plaintext, tag })
  }

  next(): Hashed<T> | undefined {
    const ready = this.#ready.shift()
    if (ready) return ready
    while (this.#freeSlots.length > 0) {
      const message = this.#macs.shift() ?? this.#ids.shift()
      if (!message) break
      this.#place(this.#underWay.length, message, this.#freeSlots.pop()!)
    }
    if (this.#underWay.length === 0) return undefined
    if (owners.get(this.#envelope) !== this) {
      native().envelopeClear(this.#envelope)
      owners.set(this.#envelope, this)
    }
    this.#take(native().envelopeRun(this.#envelope, this.#slots, this.#kinds, this.#data, this.#hashes, this.#underWay.length))
    return this.#ready.shift()
  }

  #place(at: number, message: Message<T>, slot: number): void {
    this.#underWay[at] = message
    this.#slots[at] = slot
    this.#kinds[at] = message.kind
    this.#data[at] = message.data
  }

  /** Those whose bits are set are finished; the others move up. */
  #take(finished: number): void {
    const count = this.#underWay.length
    let left = 0
    for (let index = 0; index < count; index++) {
      const message = this.#underWay[index]!, slot = this.#slots[index]!
      if ((finished >>> index) & 1) {
        this.#freeSlots.push(slot)
        this.#ready.push({ tag: message.tag, hash: this.#hashAt[index]! })
      } else this.#place(left++, message, slot)
    }
    this.#underWay.length = this.#data.length = left
  }
}

/** One after the other, by these functions. */
export class PlainHashing<T> implements Hashing<T> {
  readonly #mac: (object: Uint8Array) => Buffer
  readonly #id: (plaintext: Uint8Array) => Buffer
  readonly #wanted: { hash: (data: Uint8Array) => Buffer; data: Uint8Array; tag: T }[] = []

  constructor(mac: (object: Uint8Array) => Buffer, id: (plaintext: Uint8Array) => Buffer) {
    this.#mac = mac
    this.#id = id
  }

  mac(object: Uint8Array, tag: T): void {
    this.#wanted.push({ hash: this.#mac, data: object, tag })
  }

  id(plaintext: Uint8Array, tag: T): void {
    this.#wanted.push({ hash: this.#id, data: plaintext, tag })
  }

  next(): Hashed<T> | undefined {
    const wanted = this.#wanted.shift()
    return wanted && { tag: wanted.tag, hash: wanted.hash(wanted.data) }
  }
}
