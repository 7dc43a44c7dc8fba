/** What byte workers know of the index: they look ids up in it while its owner, another thread, goes on changing it. */
import { BucketFile } from './bucket-file.js'
import { keyWords, search } from './bucket-layout.js'
import type { SharedTable } from './hash-table.js'

/** Looks ids up in a table that another thread owns. */
export class SharedTableReader {
  readonly #words: Uint32Array | undefined
  readonly #buckets: number
  readonly #stride: number
  readonly #key = new Uint32Array(keyWords)
  readonly #keyBytes = new Uint8Array(this.#key.buffer)
  #file: BucketFile | undefined

  constructor({ buffer, path, buckets, valueWords }: SharedTable) {
    this.#words = buffer && new Uint32Array(buffer)
    this.#buckets = buckets
    this.#stride = keyWords + valueWords
    if (path === undefined) return
    try {
      this.#file = new BucketFile(path, valueWords)
      if (this.#file.header.buckets !== buckets) this.close()
    } catch {
      // Replaced meanwhile. What seems unknown only costs work.
    }
  }

  has(id: Uint8Array): boolean {
    this.#keyBytes.set(id)
    if (this.#words) return search(this.#words, this.#key, this.#buckets, this.#stride) >= 0
    try {
      return this.#file !== undefined && this.#file.search(this.#key) >= 0
    } catch {
      this.close()
      return false
    }
  }

  close(): void {
    this.#file?.close()
    this.#file = undefined
  }
}
