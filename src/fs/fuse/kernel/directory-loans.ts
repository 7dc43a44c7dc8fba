/** Has the addon answer what is asked about new small files of one directory, in the loop of receiveRequest (native/arrivals.h). */
import { randomBytes } from 'node:crypto'
import { native } from '../../../engine/native.js'
import { byteString } from '../../../engine/text.js'
import type { Arrival, Arrivals, DirectoryLoans, Loan } from '../../core.js'
import { currentGeneration } from './answers.js'

const maxFiles = 256, nameBytes = 16 << 10
/** struct arrival (native/arrivals.h): 16 numbers, of which six are three times. */
const fileWords = 16, fileTimes = fileWords / 2
const leastHashes = 1 << 10, mostHashes = 1 << 17, hashBytes = 8
const termCount = 16, timeCount = 4

export class NativeDirectoryLoans implements DirectoryLoans {
  readonly maxFiles = maxFiles
  readonly maxNameBytes = nameBytes
  readonly #files = Buffer.allocUnsafeSlow(maxFiles * fileWords * 4)
  readonly #names = Buffer.allocUnsafeSlow(nameBytes)
  /** Pages of it that are never used take no memory. */
  readonly #known = Buffer.allocUnsafeSlow(mostHashes * hashBytes)
  readonly #terms = new Float64Array(termCount)
  readonly #times = new BigInt64Array(timeCount)
  readonly #words = new Uint32Array(this.#files.buffer, this.#files.byteOffset, maxFiles * fileWords)
  readonly #fileTimes = new BigInt64Array(this.#files.buffer, this.#files.byteOffset, maxFiles * fileTimes)
  readonly #key = randomBytes(16)
  #data: Buffer | undefined

  get isLent(): boolean {
    return this.#isLent
  }
  #isLent = false

  lend({ directory, ttlMs, isLive, firstIno, firstFh, clockNs, data, dataStart, dataRoom, names, nameCount, keepsNames }: Loan): boolean {
    if (this.#isLent) return false
    if (this.#data !== data) {
      native().openArrivals(this.#files, this.#names, data, this.#known, this.#terms, this.#times, this.#key)
      this.#data = data
      if (keepsNames) return false
    }
    let hashes = leastHashes
    while (hashes < 4 * (nameCount + maxFiles)) hashes *= 2
    if (!keepsNames && hashes > mostHashes) return false
    const { ino, mode, nlink, uid, gid, size, atimeNs, mtimeNs, ctimeNs } = directory
    this.#terms.set([ino, mode, nlink, uid, gid, size, currentGeneration(), ttlMs / 1000, Number(isLive), firstIno, firstFh, dataStart, dataRoom, hashes, Number(keepsNames)])
    this.#times.set([atimeNs, mtimeNs, ctimeNs, clockNs])
    return this.#isLent = native().lendDirectory(packed(names))
  }

  end(): Arrivals {
    const count = native().endLoan()
    this.#isLent = false
    return { files: Array.from({ length: count }, (_, index) => this.#file(index)), dataLength: this.#terms[0]!, directoryNs: this.#times[0]!, lastNs: this.#times[1]! }
  }

  #file(index: number): Arrival {
    const word = (at: number): number => this.#words[fileWords * index + at]!
    const time = (at: number): bigint => this.#fileTimes[fileTimes * index + at]!
    return {
      name: byteString(this.#names.subarray(word(0), word(0) + word(1))), mode: word(2), uid: word(3), gid: word(4), isOpen: word(5) !== 0, dataStart: word(6), size: word(7),
      atimeNs: time(4), mtimeNs: time(5), ctimeNs: time(6), flags: word(14),
    }
  }
}

/** Each with its length before it. */
function packed(names: Iterable<string>): Buffer {
  let bytes = Buffer.allocUnsafe(1024)
  let end = 0
  for (const name of names) {
    if (end + 1 + name.length > bytes.length) bytes = Buffer.concat([bytes], 2 * bytes.length)
    bytes[end] = name.length
    end += 1 + bytes.write(name, end + 1, 'latin1')
  }
  return bytes.subarray(0, end)
}
