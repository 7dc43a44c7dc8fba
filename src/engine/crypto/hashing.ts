/**
 * The hashes of a job that has many: MACs of objects and ids of plaintexts. A processor does several HMAC-SHA-256 side by side in less
 * time than one after the other, so whatever is independent is given here as soon as it is there, and taken as it gets ready.
 */
import { idMessage, macMessage, maxMessages, native, type NativeEnvelope } from '../native.js'

export interface Hashed<T> {
  readonly tag: T
  /** 32 bytes; none for the MAC of a key that makes none. */
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
  readonly slot: number
}

/** Whose messages are in the slots of an envelope. Another one that finds them taken begins its own anew, which only costs work. */
const owners = new WeakMap<NativeEnvelope, object>()

/** By the addon. */
export class ManyHashing<T> implements Hashing<T> {
  readonly #envelope: NativeEnvelope
  readonly #makesMacs: boolean
  /** MACs go first: what is ciphertext is mostly done with then, and still in the processor's cache. */
  readonly #macs: Omit<Message<T>, 'slot'>[] = []
  readonly #ids: Omit<Message<T>, 'slot'>[] = []
  /** In the addon, the oldest first; their slots, kinds and bytes beside them. */
  #underWay: Message<T>[] = []
  readonly #slots = new Uint8Array(maxMessages)
  readonly #kinds = new Uint8Array(maxMessages)
  #data: Uint8Array[] = []
  readonly #freeSlots = Array.from({ length: maxMessages }, (_, slot) => slot)
  readonly #hashes = Buffer.alloc(maxMessages * hashBytes)
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
      this.#add({ ...message, slot: this.#freeSlots.pop()! })
    }
    if (this.#underWay.length === 0) return undefined
    if (owners.get(this.#envelope) !== this) {
      native().envelopeClear(this.#envelope)
      owners.set(this.#envelope, this)
    }
    this.#take(native().envelopeRun(this.#envelope, this.#slots, this.#kinds, this.#data, this.#hashes, this.#underWay.length))
    return this.#ready.shift()
  }

  #add(message: Message<T>): void {
    const at = this.#underWay.length
    this.#slots[at] = message.slot
    this.#kinds[at] = message.kind
    this.#data.push(message.data)
    this.#underWay.push(message)
  }

  /** Those whose bits are set are finished. */
  #take(finished: number): void {
    const before = this.#underWay
    this.#underWay = []
    this.#data = []
    for (const [index, message] of before.entries()) {
      if ((finished >>> index) & 1) {
        this.#freeSlots.push(message.slot)
        this.#ready.push({ tag: message.tag, hash: Buffer.from(this.#hashes.subarray(index * hashBytes, (index + 1) * hashBytes)) })
      } else this.#add(message)
    }
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
