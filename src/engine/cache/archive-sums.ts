/**
 * CACHE/ID/borgfs-archive-sums: what each archive says of its size, so that the numbers of a repository of thousands of archives do
 * not cost a read of each one's metadata. An archive never changes under its id. Ours alone: Borg leaves files alone that it does
 * not know. Losing it, or a digest that does not fit, costs the time to read them again.
 *
 *   magic 8 | rows of 80 bytes: id 32, six doubles (size, csize, nfiles; the same of part items) | SHA-256 of all before
 */
import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import type { ArchiveStats } from '../archive/archive-metadata.js'
import { idBytes } from '../constants.js'
import { errnoOf } from '../errors.js'
import { type ChunkId, idKey } from '../ids.js'
import { saveFile } from '../platform/save-file.js'

export interface ArchiveSums {
  readonly files: ArchiveStats
  readonly parts: ArchiveStats
}

const magic = Buffer.from('BFSSUMS1')
const rowBytes = 80
const digestBytes = 32

export class ArchiveSumsFile {
  readonly #path: string
  /** Those added, and those read from the file, which stay there until they are asked for. */
  readonly #added = new Map<string, Buffer>()
  #file: RowsOfFile | undefined
  #changed = false

  constructor(path: string) {
    this.#path = path
  }

  get(id: ChunkId): ArchiveSums | undefined {
    const found = this.#find(idKey(id))
    if (!found) return undefined
    const { rows, at } = found
    const sums = (start: number): ArchiveStats => ({ size: rows.getFloat64(start, true), csize: rows.getFloat64(start + 8, true), nfiles: rows.getFloat64(start + 16, true) })
    return { files: sums(at + 32), parts: sums(at + 56) }
  }

  #find(key: string): { readonly rows: DataView; readonly at: number } | undefined {
    const added = this.#added.get(key)
    if (added) return { rows: viewOf(added), at: 0 }
    const file = (this.#file ??= load(this.#path))
    const at = file.offsets.get(key)
    return at === undefined ? undefined : { rows: file.rows, at }
  }

  set(id: ChunkId, { files, parts }: ArchiveSums): void {
    const row = Buffer.alloc(rowBytes)
    id.copy(row)
    for (const [index, value] of [files.size, files.csize, files.nfiles, parts.size, parts.csize, parts.nfiles].entries()) row.writeDoubleLE(value, 32 + 8 * index)
    this.#added.set(idKey(id), row)
    this.#changed = true
  }

  /** Keeps the rows of these archives, if something was added. A cache that cannot be written is no error. */
  save(ids: Iterable<ChunkId>): void {
    if (!this.#changed) return
    const rows: Buffer[] = [magic]
    for (const id of ids) {
      const found = this.#find(idKey(id))
      if (found) rows.push(Buffer.from(found.rows.buffer, found.rows.byteOffset + found.at, rowBytes))
    }
    const content = Buffer.concat(rows)
    try {
      saveFile(this.#path, [content, createHash('sha256').update(content).digest()], { mode: 0o600, durable: 'no' })
    } catch (error) {
      if (errnoOf(error) === undefined) throw error
    }
    this.#changed = false
  }
}

interface RowsOfFile {
  readonly rows: DataView
  /** By idKey. */
  readonly offsets: ReadonlyMap<string, number>
}

function viewOf(bytes: Buffer): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
}

function load(path: string): RowsOfFile {
  const offsets = new Map<string, number>()
  let bytes: Buffer
  try {
    bytes = readFileSync(path)
  } catch {
    return { rows: viewOf(magic), offsets }
  }
  const rows = viewOf(bytes)
  const end = bytes.length - digestBytes
  if (end < magic.length || (end - magic.length) % rowBytes !== 0 || !bytes.subarray(0, magic.length).equals(magic)) return { rows, offsets }
  if (!createHash('sha256').update(bytes.subarray(0, end)).digest().equals(bytes.subarray(end))) return { rows, offsets }
  for (let at = magic.length; at < end; at += rowBytes) offsets.set(bytes.toString('latin1', at, at + idBytes), at)
  return { rows, offsets }
}
