/**
 * The contents of a staged file that is a clone or was cut while it arrived, for its archive. Whole chunks are referred to again; what lies
 * between them, written or cut in the middle, is chunked anew, and with it the chunk before: it ends where it ended, not where the chunker
 * would have ended it. So a large file with a small change costs the change.
 */
import { open } from 'node:fs/promises'
import { ChunkList } from '../../engine/archive/chunk-list.js'
import type { ByteSource } from '../../engine/chunker/chunker.js'
import { FileCipher, sealedFileSize } from '../../engine/crypto/file-cipher.js'
import { BorgError, ioError } from '../../engine/errors.js'
import { chunkId, type ChunkId } from '../../engine/ids.js'
import type { OpenedRepository } from '../../engine/operations/open.js'
import type { Content } from '../../engine/operations/archive-entry.js'
import type { LocalRepository } from '../../engine/repository/local-repository.js'
import { type FileSeal, readSealed } from '../../engine/store/sealed-file.js'
import type { Stash } from '../../engine/store/stash.js'
import { typeFile, typeMask } from '../../engine/platform/attributes.js'
import { bytesOf, shownText } from '../../engine/text.js'
import { type Extent, Extents } from './extents.js'
import { extentRowsOf, type FrozenItem, type FrozenTree } from './frozen.js'
import { FrozenItemReader } from './frozen-items.js'

type Opened = OpenedRepository<LocalRepository>

/** A stretch of the file: part of a chunk, or of the spool file. */
interface Piece {
  readonly at: number
  readonly length: number
  readonly chunk: { readonly id: ChunkId; readonly from: number } | undefined
}

/**
 * `packed`: what lies over the spool file. BorgError if a chunk is not there any more. The exclusive lock is held: what is there stays. The stashed ones of wholeChunks are in the
 * repository by now.
 */
export function clonedContent(frozen: FrozenItem, packed: Uint8Array, opened: Opened, seal: FileSeal | undefined, stash: Stash | undefined): Content {
  const extents = new Extents(packed)
  const parts: (ChunkList | ByteSource)[] = []
  let pieces: Piece[] = []
  const endPieces = (): void => {
    if (pieces.length > 0) parts.push(new PiecesSource(pieces, { path: frozen.content!.file.path, ...(seal && { seal, cipher: new FileCipher(seal.key) }) }, opened, stash))
    pieces = []
  }
  let at = 0
  const spooled = (end: number): void => {
    if (end > at) pieces.push({ at, length: end - at, chunk: undefined })
    at = end
  }
  for (let index = 0; index < extents.count; index++) {
    const extent = extents.get(index)
    if (extent.at >= frozen.size) break
    ensureThere(extent, frozen, opened, stash)
    spooled(extent.at)
    const id = chunkId(Buffer.from(extent.id))
    if (isWhole(extents, index, frozen.size)) {
      endPieces()
      let list = parts.at(-1)
      if (!(list instanceof ChunkList)) parts.push(list = new ChunkList())
      list.add(id, extent.size, extent.csize || (opened.repository.storedSize(id) ?? 0))
    } else pieces.push({ at: extent.at, length: Math.min(extent.length, frozen.size - extent.at), chunk: { id, from: extent.from } })
    at = Math.min(extent.at + extent.length, frozen.size)
  }
  spooled(frozen.size)
  endPieces()
  const [first] = parts
  return parts.length === 1 && first instanceof ChunkList ? { kind: 'chunks', chunks: first } : { kind: 'parts', parts }
}

/** An extent that is all of a chunk and is followed by another one or by the end of the file. */
function isWhole(extents: Extents, index: number, fileSize: number): boolean {
  const { at, length, from, size } = extents.get(index)
  const end = at + length
  return from === 0 && length === size && (end === fileSize || (end < fileSize && index + 1 < extents.count && extents.get(index + 1).at === end))
}

/** Ids of the chunks that the archive of a tree will refer to as they are, beside those of bases; some may come again. */
export function* wholeChunksOf(tree: FrozenTree): Generator<ChunkId> {
  const items = new FrozenItemReader(tree.items)
  for (let index = 0; index < items.length; index++) {
    const item = items.get(index)
    if (item.extentCount > 0 && (item.mode & typeMask) === typeFile) yield* wholeChunks(extentRowsOf(tree, item), item.size)
  }
}

function* wholeChunks(packed: Uint8Array, size: number): Generator<ChunkId> {
  const extents = new Extents(packed)
  for (let index = 0; index < extents.count; index++) if (isWhole(extents, index, size)) yield chunkId(Buffer.from(extents.get(index).id))
}

function ensureThere({ id: bytes }: Extent, { path }: FrozenItem, { repository }: Opened, stash: Stash | undefined): void {
  const id = chunkId(Buffer.from(bytes))
  if (repository.has(id) || stash?.has(id)) return
  throw new BorgError('Error', `${shownText(bytesOf(path))} refers to data of an archive that was deleted meanwhile, and that is gone from the repository. Remove the file or copy it again.`)
}

interface SpoolFile {
  readonly path: string
  readonly seal?: FileSeal
  readonly cipher?: FileCipher
}

/** Pieces one after the other; the chunk in use is kept decoded. */
class PiecesSource implements ByteSource {
  readonly #pieces: readonly Piece[]
  readonly #spool: SpoolFile
  readonly #opened: Opened
  readonly #stash: Stash | undefined
  #index = 0
  #done = 0
  #plain: { readonly id: ChunkId; readonly bytes: Buffer } | undefined

  constructor(pieces: readonly Piece[], spool: SpoolFile, opened: Opened, stash: Stash | undefined) {
    this.#pieces = pieces
    this.#spool = spool
    this.#opened = opened
    this.#stash = stash
  }

  async read(into: Uint8Array): Promise<number> {
    const piece = this.#pieces[this.#index]
    if (!piece) return 0
    const wanted = Math.min(into.length, piece.length - this.#done)
    if (piece.chunk) await this.#readChunk(piece.chunk, into.subarray(0, wanted))
    else await this.#readSpool(piece.at + this.#done, into.subarray(0, wanted))
    this.#done += wanted
    if (this.#done === piece.length) {
      this.#index++
      this.#done = 0
    }
    return wanted
  }

  async #readChunk({ id, from }: NonNullable<Piece['chunk']>, into: Uint8Array): Promise<void> {
    if (!this.#plain?.id.equals(id)) {
      const { objects, repository } = this.#opened
      const object = repository.has(id) ? undefined : this.#stash?.get(id)
      this.#plain = { id, bytes: await objects.parse(id, object ?? await repository.get(id)) }
    }
    into.set(this.#plain.bytes.subarray(from + this.#done, from + this.#done + into.length))
  }

  /** Opened anew each time: nobody says when the last read was. */
  async #readSpool(position: number, into: Uint8Array): Promise<void> {
    const { path, seal, cipher } = this.#spool
    const file = await open(path, 'r')
    try {
      if (seal) {
        if (sealedFileSize((await file.stat()).size) < position + into.length) throw tooShort()
        return readSealed(file.fd, cipher!, seal.file, into, position)
      }
      for (let done = 0; done < into.length; ) {
        const { bytesRead } = await file.read(into, done, into.length - done, position + done)
        if (bytesRead === 0) throw tooShort()
        done += bytesRead
      }
    } finally {
      await file.close()
    }
  }
}

function tooShort(): Error {
  return ioError('the spool file is shorter than its file')
}
