/**
 * The contents of a staged file that is a clone, for its archive. Whole chunks are referred to again; what lies between them, written
 * or cut in the middle, is chunked anew. So a large file with a small change costs the change.
 */
import { open } from 'node:fs/promises'
import { ChunkList } from '../../engine/archive/chunk-list.js'
import type { ByteSource } from '../../engine/chunker/chunker.js'
import { FileCipher, sealedFileSize } from '../../engine/crypto/file-cipher.js'
import { BorgError } from '../../engine/errors.js'
import { chunkId, type ChunkId } from '../../engine/ids.js'
import type { OpenedRepository } from '../../engine/operations/open.js'
import type { Content } from '../../engine/operations/store-archive.js'
import type { LocalRepository } from '../../engine/repository/local-repository.js'
import { type FileSeal, readSealed } from '../../engine/store/sealed-file.js'
import { bytesOf, shownText } from '../../engine/text.js'
import { type Extent, Extents } from './extents.js'
import type { FrozenItem } from './frozen.js'

type Opened = OpenedRepository<LocalRepository>

/** A stretch of the file: part of a chunk, or of the spool file. */
interface Piece {
  readonly at: number
  readonly length: number
  readonly chunk: { readonly id: ChunkId; readonly from: number } | undefined
}

/** BorgError if a chunk is not in the repository any more. The exclusive lock is held: what is there stays. */
export function clonedContent(frozen: FrozenItem, opened: Opened, seal: FileSeal | undefined): Content {
  const cipher = seal && new FileCipher(seal.key)
  const extents = new Extents(frozen.extents)
  const parts: (ChunkList | ByteSource)[] = []
  let pieces: Piece[] = []
  const endPieces = (): void => {
    if (pieces.length > 0) parts.push(new PiecesSource(pieces, { path: frozen.spool!, ...(seal && { seal, cipher: cipher! }) }, opened))
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
    ensureThere(extent, frozen, opened)
    spooled(extent.at)
    const id = chunkId(Buffer.from(extent.id))
    if (extent.from === 0 && extent.length === extent.size && extent.at + extent.length <= frozen.size) {
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

function ensureThere({ id }: Extent, { path }: FrozenItem, { repository }: Opened): void {
  if (repository.has(chunkId(Buffer.from(id)))) return
  throw new BorgError('Error', `${shownText(bytesOf(path))} was cloned from an archive that was deleted meanwhile, and its data is gone from the repository. Remove the file or copy it again.`)
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
  #index = 0
  #done = 0
  #plain: { readonly id: ChunkId; readonly bytes: Buffer } | undefined

  constructor(pieces: readonly Piece[], spool: SpoolFile, opened: Opened) {
    this.#pieces = pieces
    this.#spool = spool
    this.#opened = opened
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
    if (!this.#plain?.id.equals(id)) this.#plain = { id, bytes: await this.#opened.objects.parse(id, await this.#opened.repository.get(id)) }
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
  return Object.assign(new Error('the spool file is shorter than its file'), { code: 'EIO', errno: -5 })
}
