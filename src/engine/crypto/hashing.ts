/**
 * The hashes of a job that has many: MACs of objects and ids of plaintexts. A processor does two HMAC-SHA-256 side by side in less
 * time than one after the other, so whatever is independent is given here as soon as it is there, and taken as it gets ready.
 */
import { laneId, laneMac, laneNothing, native, type NativeEnvelope } from '../native.js'

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
  /** One that is ready, in no certain order; undefined if all were taken. To be called when two or more are wanted, or no more will come. */
  next(): Hashed<T> | undefined
}

const hashBytes = 32
const noBytes = new Uint8Array(0)
const noHash = Buffer.alloc(0)

interface Message<T> {
  readonly kind: number
  readonly data: Uint8Array
  readonly tag: T
}

/** Whose messages are in the lanes of an envelope. Another one that finds them taken begins its own anew, which only costs work. */
const owners = new WeakMap<NativeEnvelope, object>()

/** By the addon. */
export class PairedHashing<T> implements Hashing<T> {
  readonly #envelope: NativeEnvelope
  readonly #makesMacs: boolean
  /** MACs go first: what is ciphertext is mostly done with then, and still in the processor's cache. */
  readonly #macs: Message<T>[] = []
  readonly #ids: Message<T>[] = []
  readonly #lanes: [Message<T> | undefined, Message<T> | undefined] = [undefined, undefined]
  readonly #hashes = Buffer.alloc(2 * hashBytes)
  readonly #ready: Hashed<T>[] = []

  /** `makesMacs`: the key is one that encrypts. */
  constructor(envelope: NativeEnvelope, makesMacs: boolean) {
    this.#envelope = envelope
    this.#makesMacs = makesMacs
  }

  mac(object: Uint8Array, tag: T): void {
    if (this.#makesMacs) this.#macs.push({ kind: laneMac, data: object, tag })
    else this.#ready.push({ tag, hash: noHash })
  }

  id(plaintext: Uint8Array, tag: T): void {
    this.#ids.push({ kind: laneId, data: plaintext, tag })
  }

  next(): Hashed<T> | undefined {
    const ready = this.#ready.shift()
    if (ready) return ready
    const first = (this.#lanes[0] ??= this.#waiting()), second = (this.#lanes[1] ??= this.#waiting())
    if (!first && !second) return undefined
    if (owners.get(this.#envelope) !== this) {
      native().envelopeClearLanes(this.#envelope)
      owners.set(this.#envelope, this)
    }
    const finished = native().envelopeRunLanes(this.#envelope, first?.kind ?? laneNothing, first?.data ?? noBytes, second?.kind ?? laneNothing, second?.data ?? noBytes, this.#hashes)
    if (finished & 1) this.#take(0, first!)
    if (finished & 2) this.#take(1, second!)
    return this.#ready.shift()
  }

  #waiting(): Message<T> | undefined {
    return this.#macs.shift() ?? this.#ids.shift()
  }

  #take(lane: 0 | 1, { tag }: Message<T>): void {
    this.#lanes[lane] = undefined
    this.#ready.push({ tag, hash: Buffer.from(this.#hashes.subarray(lane * hashBytes, (lane + 1) * hashBytes)) })
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
