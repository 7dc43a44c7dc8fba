/**
 * Small staged files, many in one file on disk: to make a file for each would cost more than all the rest. A file's content is a run of
 * bytes in a bundle, written at once as it comes, so that a killed process loses nothing; or, where `putsOff` says so, a little later, many
 * at once (`catchUp`), into room that was taken for it before. Bundles only grow; one goes when nothing in it is wanted any more. Encrypted as spool files are, under numbers of their own (crypto/file-cipher.ts); runs begin at whole blocks.
 *
 * Only what was written from front to back lies here: holes and files that grow among others get a spool file.
 */
import { constants, fstatSync, readdirSync, readSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { fileBlockBytes, type FileCipher } from '../../engine/crypto/file-cipher.js'
import { ioError } from '../../engine/errors.js'
import { native } from '../../engine/native.js'
import { files } from '../../engine/platform/files.js'
import { blocksAround, readSealed, scratchBytes } from '../../engine/store/sealed-file.js'
import { hostErrno } from './contents.js'
import { keepSize } from './spool.js'

/** Files up to here are one chunk whatever the chunker's mask says, so that they can be stored without cutting. */
export const maxBundledBytes = 512 << 10
const maxBundleBytes = 8 << 20
/** So much is written at once, and what is longer alone. */
const waitingBytes = 1 << 20, maxWaitingBytes = 64 << 10
/** Room for it is taken in such pieces. */
const roomBytes = 1 << 20, keepRoomMs = 1000
/** Above all numbers of spool files. */
const firstCipherNumber = 2 ** 48

/** Where the content of a small file lies. Its length is the file's size. */
export interface BundlePlace {
  readonly bundle: number
  readonly start: number
}

/**
 * Where a file lay, at what size, until a spool file took over, and in which start of the machine (`bootId`) that was. Only when the spool file
 * is durable does the former place mean nothing: had the machine failed before, all that is known to be there would be that.
 */
export interface FormerPlace {
  readonly place: BundlePlace
  readonly size: number
  readonly boot: string
}

interface Bundle {
  fd: number | undefined
  /** Files that lie in it. */
  files: number
  /** Its name is durable. */
  named: boolean
}

export interface LentRoom {
  readonly data: Buffer
  readonly start: number
  readonly room: number
  readonly place: BundlePlace
}

interface CurrentBundle {
  readonly number: number
  readonly bundle: Bundle
  /** Where the next file goes. */
  end: number
  /** Up to where there is room on the disk for certain. */
  allocated: number
}

/** What is not written yet: the end of the current bundle. */
interface Waiting {
  readonly number: number
  readonly start: number
  length: number
}

export class Bundles {
  readonly #folder: string
  readonly #cipher: FileCipher | undefined
  readonly #bundles = new Map<number, Bundle>()
  #current: CurrentBundle | undefined
  #next = 1
  /** Contents may wait for `catchUp`. */
  putsOff = false
  #waiting: Waiting | undefined
  /** As the files have it, with zeros up to whole blocks. */
  #memory: Buffer | undefined

  constructor(stagingFolder: string, cipher?: FileCipher) {
    this.#folder = join(stagingFolder, 'bundles')
    this.#cipher = cipher
    files.ensureDirectory(this.#folder, 0o700)
    // Whatever else lies there, as NFS leaves of removed files that somebody has open, is none.
    for (const name of readdirSync(this.#folder).filter(name => /^\d+$/.test(name))) {
      this.#bundles.set(Number(name), { fd: undefined, files: 0, named: true })
      this.#next = Math.max(this.#next, Number(name) + 1)
    }
  }

  path(bundle: number): string {
    return join(this.#folder, String(bundle))
  }

  /** Under the key of the staging folder. */
  cipherNumber(bundle: number): number {
    return firstCipherNumber + bundle
  }

  /** Host errors; then nothing lies there. */
  add(data: Uint8Array): BundlePlace {
    if (this.#current && this.#current.end + data.length > maxBundleBytes) this.#finish()
    const current = this.#current ??= this.#begin()
    const place = { bundle: current.number, start: current.end }
    if (!this.#putOff(place, 0, data)) this.#writeNow(place, 0, data, 0)
    current.end = blocksAround(place.start, data.length).end
    current.bundle.files++
    return place
  }

  /** False if it has to be written now: there may be no room for it later, or the file's beginning is written already. */
  #putOff({ bundle, start }: BundlePlace, at: number, data: Uint8Array): boolean {
    const current = this.#current
    if (!this.putsOff || current?.number !== bundle || data.length > maxWaitingBytes) return false
    this.#isUsed = true
    const { end } = blocksAround(start + at, data.length)
    if (this.#waiting && end - this.#waiting.start > waitingBytes) this.catchUp()
    const isNew = start === current.end
    if (this.#waiting ? start < this.#waiting.start : !isNew) return false
    if (end > current.allocated && !takeRoom(current, end)) return false
    const waiting = this.#waiting ??= { number: bundle, start, length: 0 }
    const memory = this.#waitingMemory
    const offset = start + at - waiting.start
    memory.set(data, offset)
    if (end - waiting.start <= waiting.length) return true
    waiting.length = end - waiting.start
    memory.fill(0, offset + data.length, waiting.length)
    return true
  }

  /** What of a file is not written yet: all of it, from its first byte on. */
  #waitingPart({ bundle, start }: BundlePlace): Buffer | undefined {
    const { number, start: from, length } = this.#waiting ?? {}
    return number === bundle && start >= from! ? this.#memory!.subarray(start - from!, length) : undefined
  }

  get isBehind(): boolean {
    return this.#waiting !== undefined
  }

  /** Now and then: room that was taken and is not used for a while goes back, and a bundle in which nothing came to lie. */
  tick(nowMs: number): void {
    if (this.#isUsed) this.#usedAtMs = nowMs
    this.#isUsed = false
    const current = this.#current
    if (!current || this.#waiting || current.allocated <= current.end || nowMs - this.#usedAtMs < keepRoomMs) return
    if (current.bundle.files === 0) this.#remove(current.number, current.bundle)
    else giveRoomBack(current)
  }
  #isUsed = false
  #usedAtMs = 0

  get #waitingMemory(): Buffer {
    return this.#memory ??= Buffer.allocUnsafeSlow(waitingBytes)
  }

  /**
   * Memory, and room on the disk, for the contents of files that are to be added: `data` from `start` on, `room` bytes. The first of them lies at `place`. Nothing may be added before `arrived`.
   * Undefined if there is no room. Host errors.
   */
  lend(): LentRoom | undefined {
    if (!this.putsOff) return undefined
    this.#isUsed = true
    if (this.#current && this.#current.end + maxWaitingBytes > maxBundleBytes) this.#finish()
    if (this.#waiting && this.#waiting.length + maxWaitingBytes > waitingBytes) this.catchUp()
    const current = this.#current ??= this.#begin()
    const start = this.#waiting?.length ?? 0
    const room = Math.min(waitingBytes - start, maxBundleBytes - current.end)
    if (current.end + room > current.allocated && !takeRoom(current, current.end + room)) return undefined
    return { data: this.#waitingMemory, start, room, place: { bundle: current.number, start: current.end } }
  }

  /** So many files lie in the first `length` bytes of what was lent, each from a whole block on. */
  arrived(length: number, files: number): void {
    const current = this.#current!
    const waiting = this.#waiting ??= { number: current.number, start: current.end, length: 0 }
    const { end } = blocksAround(current.end, length)
    const from = waiting.length
    waiting.length += end - current.end
    this.#waitingMemory.fill(0, from + length, waiting.length)
    current.end = end
    current.bundle.files += files
  }

  /** Writes what was put off. Host errors: it still waits. */
  catchUp(): void {
    if (!this.#waiting) return
    const { number, start, length } = this.#waiting
    const memory = this.#memory!.subarray(0, length)
    this.#writeBlocks(number, start, memory, this.#cipher && scratchBytes(length))
    this.#waiting = undefined
  }

  #writeBlocks(bundle: number, start: number, blocks: Uint8Array, sealed: Uint8Array | undefined): void {
    if (sealed) this.#cipher!.seal(this.cipherNumber(bundle), start, blocks, sealed)
    files.writeAll(this.#descriptor(bundle), sealed ?? blocks, start)
  }

  /**
   * Writes to a file of `size` bytes, somewhere in it or at its end. False if it cannot grow where it lies. Host errors: some of it may
   * have been written.
   */
  write(place: BundlePlace, at: number, data: Uint8Array, size: number): boolean {
    const end = at + data.length
    if (at > size || end > maxBundledBytes) return false
    const current = this.#current
    const room = blocksAround(place.start, size).end
    const grows = place.start + end > room
    if (grows && (current?.number !== place.bundle || room !== current.end)) return false
    if (!this.#putOff(place, at, data)) this.#writeNow(place, at, data, size)
    if (grows) current!.end = blocksAround(place.start, end).end
    return true
  }

  #writeNow(place: BundlePlace, at: number, data: Uint8Array, size: number): void {
    this.catchUp()
    this.#write(place, at, data, size)
  }

  /** The bytes around what is written belong to the same file, or to nobody. */
  #write({ bundle, start }: BundlePlace, at: number, data: Uint8Array, size: number): void {
    const fd = this.#descriptor(bundle)
    const position = start + at
    if (!this.#cipher) return files.writeAll(fd, data, position)
    const around = blocksAround(position, data.length)
    const number = this.cipherNumber(bundle)
    const head = around.start < position ? Buffer.alloc(fileBlockBytes) : undefined
    if (head) readSealed(fd, this.#cipher, number, head, around.start)
    const last = around.end - fileBlockBytes
    const tail = position + data.length < around.end && last < start + size ? Buffer.alloc(fileBlockBytes) : undefined
    if (tail) readSealed(fd, this.#cipher, number, tail, last)
    const blocks = scratchBytes(around.end - around.start)
    blocks.fill(0, 0, Math.min(fileBlockBytes, blocks.length))
    blocks.fill(0, blocks.length - fileBlockBytes)
    if (tail) blocks.set(tail, last - around.start)
    if (head) blocks.set(head.subarray(0, position - around.start))
    blocks.set(data, position - around.start)
    this.#writeBlocks(bundle, around.start, blocks, blocks)
  }

  /** All of `into`, which lies within the file. */
  read(place: BundlePlace, into: Buffer, offset: number): void {
    const waiting = this.#waitingPart(place)
    if (waiting) return void waiting.copy(into, 0, offset)
    const { bundle, start } = place
    const fd = this.#descriptor(bundle)
    if (this.#cipher) return readSealed(fd, this.#cipher, this.cipherNumber(bundle), into, start + offset)
    let done = 0
    while (done < into.length) {
      const count = readSync(fd, into, done, into.length - done, start + offset + done)
      if (count === 0) break
      done += count
    }
    into.fill(0, done)
  }

  /** What of a file is there: less than its size if the host lost what nobody had made durable. */
  present({ bundle, start }: BundlePlace, size: number): number {
    const length = statSync(this.path(bundle), { throwIfNoEntry: false })?.size ?? 0
    return Math.min(size, Math.max(0, length - start))
  }

  /** After recovery: a file lies here. */
  claim({ bundle }: BundlePlace): void {
    const known = this.#bundles.get(bundle)
    if (known) known.files++
  }

  /** A file does not lie here any more. */
  release({ bundle }: BundlePlace): void {
    const known = this.#bundles.get(bundle)
    if (!known) return
    known.files--
    if (known.files === 0) this.#remove(bundle, known)
  }

  /** Removes the bundles of nobody. */
  removeOrphans(): void {
    for (const [number, bundle] of [...this.#bundles]) if (bundle.files === 0) this.#remove(number, bundle)
  }

  get isEmpty(): boolean {
    return this.#bundles.size === 0
  }

  /** Removes all of them: nothing is staged any more, and that is durable. */
  clear(): void {
    for (const [number, bundle] of [...this.#bundles]) this.#remove(number, bundle)
  }

  /** The folder, if it has to be synced for the bundle's name to be durable. `named` is to be called when it was. */
  folderOf({ bundle }: BundlePlace): string | undefined {
    return this.#bundles.get(bundle)?.named === false ? this.#folder : undefined
  }

  named({ bundle }: BundlePlace): void {
    const known = this.#bundles.get(bundle)
    if (known) known.named = true
  }

  #descriptor(number: number): number {
    const bundle = this.#bundles.get(number)
    if (!bundle) throw ioError('no such bundle')
    return bundle.fd ??= files.open(this.path(number), constants.O_RDWR)
  }

  #begin(): CurrentBundle {
    const number = this.#next++
    const bundle: Bundle = { fd: files.open(this.path(number), constants.O_RDWR | constants.O_CREAT | constants.O_EXCL, 0o600), files: 0, named: false }
    this.#bundles.set(number, bundle)
    // Where a write failed before, something may lie behind what is known.
    return { number, bundle, end: blocksAround(0, fstatSync(bundle.fd!).size).end, allocated: 0 }
  }

  #finish(): void {
    this.catchUp()
    const current = this.#current!
    const { number, bundle } = current
    this.#current = undefined
    if (bundle.files === 0) return this.#remove(number, bundle)
    giveRoomBack(current)
    this.#close(bundle)
  }

  #remove(number: number, bundle: Bundle): void {
    if (this.#current?.bundle === bundle) this.#current = undefined
    if (this.#waiting?.number === number) this.#waiting = undefined
    this.#close(bundle)
    this.#bundles.delete(number)
    files.removeIfThere(this.path(number))
  }

  #close(bundle: Bundle): void {
    if (bundle.fd !== undefined) files.close(bundle.fd)
    bundle.fd = undefined
  }

  closeAll(): void {
    for (const bundle of this.#bundles.values()) this.#close(bundle)
  }
}

/** False on a full disk, and on a file system that does not take room in advance. */
function takeRoom(current: CurrentBundle, end: number): boolean {
  const from = Math.max(current.allocated, current.end)
  const to = Math.max(end, from + roomBytes)
  if (hostErrno(() => native().fallocate(current.bundle.fd!, keepSize, from, to - from))) return false
  current.allocated = to
  return true
}

/** What cannot goes with the bundle. */
function giveRoomBack(current: CurrentBundle): void {
  if (current.allocated <= current.end) return
  hostErrno(() => files.truncateOpen(current.bundle.fd!, current.end))
  current.allocated = current.end
}
