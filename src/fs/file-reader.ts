/**
 * File content: an offset becomes chunks by the sums of their sizes, chunks come from the cache or, later, from the engine.
 * One reader serves all archives. A read that touches a chunk which cannot be had is EIO and one line in the log; all
 * other reads go on.
 */
import { idHex } from '../engine/ids.js'
import type { Log } from '../engine/log.js'
import { shownText } from '../engine/text.js'
import type { ArchiveTree } from './archive-tree.js'
import { type CachedChunk, type ChunkCache, longTogether, pageBytes } from './chunk-cache.js'
import { type Answer, type Call, LATER, type ReadAnswer, type ReadBytes } from './core.js'
import type { WireError } from './engine-port.js'
import { errnoByCode } from './errno.js'
import type { HandedFiles } from './handed-files.js'
import { type FileSequence, maxWindow, reorderBytes, SequentialRead } from './read-ahead.js'
import type { Errno, Ino } from './types.js'

/** Prefetches stop while so many loads of that length are under way: they must not stand before what somebody waits for. */
const maxLongPrefetches = 24, maxShortPrefetches = 1024
/** Below this a copy into the reply costs less than a reply of two pieces. */
const minViewBytes = 16 * 1024
/** Longer files are not given as they are opened: who opens may want a part of them. The kernel reads ahead as much when the first byte is asked for. */
const maxFillBytes = 128 * 1024
/** Buffers kept for answers that are given later. */
const spareBuffers = 4
const spareBytes = 1024 * 1024
/** Chunks whose failure was told; beyond it, the oldest may be told again. */
const maxToldFailures = 1000

/** An open file. Keeps its tree alive, also when the archive's owner dropped it. */
export class OpenFile {
  readonly sequence = new SequentialRead()
  /** Chunks before this one were read from end to end. */
  passedChunks = 0
  #sums: Float64Array | undefined

  /** `ino`: what the kernel has opened. `ahead`: where files behind it may be given to the kernel as well. */
  constructor(readonly tree: ArchiveTree, readonly row: number, readonly ino: Ino, readonly files: FileSequence, readonly archiveName: Buffer, readonly ahead?: FilesAhead) {}

  /** Offset at which each chunk starts; one value more than chunks. */
  get sums(): Float64Array {
    if (this.#sums) return this.#sums
    const count = this.tree.chunkCount(this.row)
    const first = this.tree.chunkStart(this.row)
    const sums = new Float64Array(count + 1)
    for (let index = 0; index < count; index++) sums[index + 1] = sums[index]! + this.tree.chunkSize(first + index)
    return this.#sums = sums
  }

  /** Index of the chunk that holds `offset`, which lies within the file. */
  chunkAt(offset: number): number {
    const sums = this.sums
    let low = 0, high = sums.length - 1
    while (low + 1 < high) {
      const middle = (low + high) >>> 1
      if (sums[middle]! <= offset) low = middle
      else high = middle
    }
    return low
  }
}

/** What tells which files may be given to the kernel before they are opened. */
export interface FilesAhead {
  readonly handed: HandedFiles
  /** Somebody has it open by a handle of its own, or may not have it. */
  keepsBack(row: number): boolean
}

/** The kernel's page cache. */
export interface PageCache {
  /** Offers a chunk of a file that is being read. See `VirtualFs`. */
  offer(file: OpenFile, offset: number, data: Buffer): void
  /** Gives the whole content of a file which nobody has open yet. False if the kernel does not know the file. See KernelNotices.storeNow. */
  fill?: ((ino: Ino, pieces: readonly Uint8Array[], length: number) => boolean) | undefined
}

export class FileReader {
  readonly #cache: ChunkCache
  readonly #log: Log
  readonly #spare: Buffer[] = []
  readonly #told = new Set<string>()
  readonly #pages: PageCache | undefined

  constructor(cache: ChunkCache, log: Log, pages?: PageCache) {
    this.#cache = cache
    this.#log = log
    this.#pages = pages
  }

  /** To be called for a file that is being opened and that nobody else has open: gives its content to the kernel if it is wanted next and is here. */
  opening(file: OpenFile): void {
    const { tree, row, files, ino } = file
    const size = tree.size(row)
    if (!this.#pages?.fill || size === 0 || size > maxFillBytes || !files.expects(row) || !this.#fill(file, ino)) return
    this.#readAhead(file, 0, size, file.sums.length - 2)
    this.#fillAhead(file)
    this.#cache.flush()
  }

  /** To be called for a file that is being opened and whose content the kernel was given earlier. */
  passing(file: OpenFile): void {
    file.files.note(file.tree, file.row, this.#cache.maxBytes, this.#wanting(file.tree))
    this.#fillAhead(file)
    this.#cache.flush()
  }

  /** Gives what follows to the kernel, as far as it is here and the kernel knows the files. */
  #fillAhead({ tree, row, ino, files, archiveName, ahead }: OpenFile): void {
    if (!ahead || !this.#pages?.fill) return
    files.handOutAhead(row, (next, tells) => {
      const size = tree.size(next)
      if (!tree.isRegular(next) || tree.targetOf(next) !== next || size > maxFillBytes || !ahead.handed.mayGive(next) || ahead.keepsBack(next)) return 'none'
      if (size > 0 && !this.#fill(new OpenFile(tree, next, ino, files, archiveName), ino + next - row)) return 'later'
      ahead.handed.give(next, tells)
      return 'given'
    })
  }

  /** Gives all of a file to the kernel, which has it then. False if some of it is not here, or the kernel has no use for it. */
  #fill({ tree, row, sums, files }: OpenFile, ino: Ino): boolean {
    const size = tree.size(row), start = tree.chunkStart(row), count = tree.chunkCount(row)
    const pieces: Uint8Array[] = []
    this.#cache.letGo()
    for (let index = 0; index < count; index++) {
      const chunk = this.#cache.get(tree.chunkId(start + index), tree.chunkSize(start + index))
      if (!chunk) return false
      this.#cache.view(chunk, 0, chunk.size, pieces)
    }
    if (sums[count] !== size || !files.mayHandOut() || !this.#pages!.fill!(ino, pieces, size)) return false
    for (let index = 0; index < count; index++) this.#cache.passed(tree.chunkId(start + index))
    return true
  }

  /** As FsCore.read. */
  read(file: OpenFile, offset: number, into: Buffer, call: Call<ReadBytes>): Answer<ReadAnswer> {
    const { sums, tree, row, files } = file
    if (offset === 0) files.asked()
    const end = Math.min(offset + into.length, tree.size(row), sums[sums.length - 1]!)
    if (offset >= end) return 0
    const first = file.chunkAt(offset)
    let last = first
    while (sums[last + 1]! < end) last++
    const range: Range = { file, offset, end, first, last }
    const missing = this.#missing(range, -1)
    let answer: Answer<ReadAnswer>
    if (missing.length === 0) answer = this.#compose(range, into, -1, undefined)
    else {
      answer = LATER
      const late: LateRead = { ...range, bytes: undefined, left: 0, answer: call.defer(), errno: undefined }
      for (const index of missing) this.#await(late, index)
    }
    this.#readAhead(file, offset, end - offset, last)
    this.#cache.flush()
    return answer
  }

  /** Chunks of the range that are not in the cache, `but` left out. */
  #missing({ file: { tree, row }, first, last }: Range, but: number): number[] {
    const start = tree.chunkStart(row)
    const missing: number[] = []
    for (let index = first; index <= last; index++) if (index !== but && !this.#cache.get(tree.chunkId(start + index), tree.chunkSize(start + index))) missing.push(index)
    return missing
  }

  /** The bytes of a range whose chunks are all here: short ones copied to `into`, others where they lie. `loaded` is chunk `index`, which a cache too small for it may not have. */
  #compose(range: Range, into: Buffer, index: number, loaded: CachedChunk | undefined): ReadAnswer {
    const { offset, end } = range
    const parts: Uint8Array[] = []
    this.#cache.letGo()
    const views = end - offset >= minViewBytes
    this.#pieces(range, (chunk, from, to, at) => {
      if (views) this.#cache.view(chunk, from, to, parts)
      else this.#cache.copy(chunk, from, to, into, at)
    }, index, loaded)
    return views ? parts : end - offset
  }

  /** Calls `take` for each chunk of the range that is here, with the part of it that is wanted and where that stands in the range. */
  #pieces({ file: { sums, tree, row }, offset, end, first, last }: Range, take: (chunk: CachedChunk, from: number, to: number, at: number) => void, index: number, loaded: CachedChunk | undefined): void {
    const start = tree.chunkStart(row)
    for (let next = first; next <= last; next++) {
      const chunk = next === index ? loaded : this.#cache.get(tree.chunkId(start + next), tree.chunkSize(start + next))
      if (!chunk) continue
      const from = Math.max(offset, sums[next]!) - sums[next]!
      take(chunk, from, Math.min(end, sums[next + 1]!) - sums[next]!, sums[next]! + from - offset)
    }
  }

  #await(late: LateRead, index: number): void {
    const { tree, row } = late.file
    const chunk = tree.chunkStart(row) + index
    const id = tree.chunkId(chunk)
    late.left++
    this.#cache.request(id, tree.chunkSize(chunk), (error, loaded) => {
      if (error) late.errno = this.#failed(late.file, id, error)
      else if (late.bytes) {
        const { bytes } = late
        this.#pieces({ ...late, first: index, last: index }, (piece, from, to, at) => this.#cache.copy(piece, from, to, bytes, at), index, loaded)
      }
      if (--late.left === 0) this.#arrived(late, index, loaded)
    })
  }

  /** The last chunk that was missing is here, the others mostly are still. */
  #arrived(late: LateRead, index: number, loaded: CachedChunk | undefined): void {
    const length = late.end - late.offset
    if (late.errno) late.answer(late.errno)
    else if (late.bytes) late.answer(late.bytes.subarray(0, length))
    else {
      const missing = this.#missing(late, index)
      const bytes = this.#takeBuffer(length)
      if (missing.length > 0) {
        // The cache is too small for what is read at once: from now on pieces are copied as they come.
        late.bytes = bytes
        this.#pieces(late, (chunk, from, to, at) => this.#cache.copy(chunk, from, to, bytes, at), index, loaded)
        for (const again of missing) this.#await(late, again)
        this.#cache.flush()
        return
      }
      const answer = this.#compose(late, bytes, index, loaded)
      late.answer(typeof answer === 'number' ? bytes.subarray(0, answer) : answer)
      this.#giveBuffer(bytes)
    }
    if (late.bytes) this.#giveBuffer(late.bytes)
    if (loaded && length <= pageBytes) this.#offer(late.file, index, loaded)
  }

  /** After a small read that needed a whole chunk: where reads jump about, the rest of it may be wanted later. */
  #offer(file: OpenFile, index: number, chunk: CachedChunk): void {
    if (!this.#pages || !file.sequence.jumpsAbout) return
    const data = Buffer.allocUnsafeSlow(chunk.size)
    this.#cache.copy(chunk, 0, chunk.size, data, 0)
    this.#pages.offer(file, file.sums[index]!, data)
  }

  #readAhead(file: OpenFile, offset: number, length: number, last: number): void {
    const { tree, row } = file
    const window = file.sequence.note(offset, length, last)
    const want = this.#wanting(tree)
    if (window > 0) {
      const start = tree.chunkStart(row)
      for (const end = file.chunkAt(Math.max(0, offset - reorderBytes)); file.passedChunks < end; file.passedChunks++) this.#cache.passed(tree.chunkId(start + file.passedChunks))
      const end = this.#windowEnd(file, last + 1, Math.min(tree.chunkCount(row), last + 1 + window))
      // Long chunks are loaded several together, so a full window waits until it lacks as many.
      const waits = end - last - 1 === maxWindow && end < tree.chunkCount(row) && this.#lacking(tree, start + last + 1, start + end) < longTogether
      if (!waits) for (let index = last + 1; index < end; index++) want(start + index)
      if (end === tree.chunkCount(row)) file.files.note(tree, row, this.#cache.maxBytes, want)
    }
  }

  /** Prefetches a chunk, unless that is under way or too much is. */
  #wanting(tree: ArchiveTree): (chunk: number) => void {
    return (chunk) => {
      const id = tree.chunkId(chunk)
      const { short, long } = this.#cache.loadingCounts
      if ((tree.chunkSize(chunk) > pageBytes ? long < maxLongPrefetches : short < maxShortPrefetches) && !this.#cache.knows(id)) {
        this.#cache.request(id, tree.chunkSize(chunk))
      }
    }
  }

  /** Chunks [from, to) of a file, or fewer: what is read ahead must not drive out what else was, in a small cache. */
  #windowEnd({ sums }: OpenFile, from: number, to: number): number {
    while (to > from + 1 && sums[to]! - sums[from]! > this.#cache.maxBytes / 2) to--
    return to
  }

  /** How many chunk rows of [from, to) are neither here nor on their way. */
  #lacking(tree: ArchiveTree, from: number, to: number): number {
    let count = 0
    for (let chunk = from; chunk < to; chunk++) if (!this.#cache.knows(tree.chunkId(chunk))) count++
    return count
  }

  #failed(file: OpenFile, id: Uint8Array, error: WireError): Errno {
    const hex = idHex(id)
    if (!this.#told.has(hex)) {
      if (this.#told.size >= maxToldFailures) this.#told.delete(this.#told.values().next().value!)
      this.#told.add(hex)
      this.#log.write('error', 'borg.fuse',
        `${shownText(file.archiveName)}: ${shownText(file.tree.pathOf(file.row))}: chunk ${hex} cannot be read: ${error.message}`)
    }
    return errnoByCode(error.code)
  }

  #takeBuffer(length: number): Buffer {
    if (length > spareBytes) return Buffer.allocUnsafeSlow(length)
    return this.#spare.pop() ?? Buffer.allocUnsafeSlow(spareBytes)
  }

  #giveBuffer(buffer: Buffer): void {
    if (buffer.length === spareBytes && this.#spare.length < spareBuffers) this.#spare.push(buffer)
  }
}

/** Bytes [offset, end) of a file, which lie in its chunks [first, last]. */
interface Range {
  readonly file: OpenFile
  readonly offset: number
  readonly end: number
  readonly first: number
  readonly last: number
}

interface LateRead extends Range {
  /** Where pieces are copied to, once it is clear that they will not all be in the cache at one time. */
  bytes: Buffer | undefined
  left: number
  readonly answer: (answer: ReadBytes | Errno) => void
  errno: Errno | undefined
}
