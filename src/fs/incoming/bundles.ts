/**
 * Small staged files, many in one file on disk: to make a file for each would cost more than all the rest. A file's content is a run of
 * bytes in a bundle, written at once as it comes, so that a killed process loses nothing. Bundles only grow; one goes when nothing in it is
 * wanted any more. Encrypted as spool files are, under numbers of their own (crypto/file-cipher.ts); runs begin at whole blocks.
 *
 * Only what was written from front to back lies here: holes and files that grow among others get a spool file.
 */
import { constants, fstatSync, readdirSync, readSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { fileBlockBytes, type FileCipher } from '../../engine/crypto/file-cipher.js'
import { ioError } from '../../engine/errors.js'
import { files } from '../../engine/platform/files.js'
import { blocksAround, readSealed, scratchBytes } from '../../engine/store/sealed-file.js'

/** Files up to here are one chunk whatever the chunker's mask says, so that they can be stored without cutting. */
export const maxBundledBytes = 512 << 10
const maxBundleBytes = 8 << 20
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

interface CurrentBundle {
  readonly number: number
  readonly bundle: Bundle
  /** Where the next file goes. */
  end: number
}

export class Bundles {
  readonly #folder: string
  readonly #cipher: FileCipher | undefined
  readonly #bundles = new Map<number, Bundle>()
  #current: CurrentBundle | undefined
  #next = 1

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
    this.#write(place, 0, data, 0)
    current.end = blocksAround(place.start, data.length).end
    current.bundle.files++
    return place
  }

  /**
   * Writes to a file of `size` bytes, somewhere in it or at its end. False if it cannot grow where it lies. Host errors: some of it may
   * have been written.
   */
  write(place: BundlePlace, at: number, data: Uint8Array, size: number): boolean {
    const end = at + data.length
    if (at > size || end > maxBundledBytes) return false
    if (end <= blocksAround(place.start, size).end - place.start) {
      this.#write(place, at, data, size)
      return true
    }
    const current = this.#current
    if (current?.number !== place.bundle || blocksAround(place.start, size).end !== current.end) return false
    this.#write(place, at, data, size)
    current.end = blocksAround(place.start, end).end
    return true
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
    this.#cipher.seal(number, around.start, blocks, blocks)
    files.writeAll(fd, blocks, around.start)
  }

  /** All of `into`, which lies within the file. */
  read({ bundle, start }: BundlePlace, into: Buffer, offset: number): void {
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
    return { number, bundle, end: blocksAround(0, fstatSync(bundle.fd!).size).end }
  }

  #finish(): void {
    const { number, bundle } = this.#current!
    this.#current = undefined
    if (bundle.files === 0) this.#remove(number, bundle)
    else this.#close(bundle)
  }

  #remove(number: number, bundle: Bundle): void {
    if (this.#current?.bundle === bundle) this.#current = undefined
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
