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
  /** Rows by id; those read from the file stay packed until they are asked for. */
  #rows: Map<string, Buffer> | undefined
  #changed = false

  constructor(path: string) {
    this.#path = path
  }

  get(id: ChunkId): ArchiveSums | undefined {
    const row = this.#loaded().get(idKey(id))
    if (!row) return undefined
    const sums = (at: number): ArchiveStats => ({ size: row.readDoubleLE(at), csize: row.readDoubleLE(at + 8), nfiles: row.readDoubleLE(at + 16) })
    return { files: sums(32), parts: sums(56) }
  }

  set(id: ChunkId, { files, parts }: ArchiveSums): void {
    const row = Buffer.alloc(rowBytes)
    id.copy(row)
    for (const [index, value] of [files.size, files.csize, files.nfiles, parts.size, parts.csize, parts.nfiles].entries()) row.writeDoubleLE(value, 32 + 8 * index)
    this.#loaded().set(idKey(id), row)
    this.#changed = true
  }

  /** Keeps the rows of these archives, if something was added. A cache that cannot be written is no error. */
  save(ids: Iterable<ChunkId>): void {
    if (!this.#changed) return
    const rows: Buffer[] = [magic]
    for (const id of ids) {
      const row = this.#loaded().get(idKey(id))
      if (row) rows.push(row)
    }
    const content = Buffer.concat(rows)
    try {
      saveFile(this.#path, [content, createHash('sha256').update(content).digest()], { mode: 0o600, durable: 'no' })
    } catch (error) {
      if (errnoOf(error) === undefined) throw error
    }
    this.#changed = false
  }

  #loaded(): Map<string, Buffer> {
    return (this.#rows ??= load(this.#path))
  }
}

function load(path: string): Map<string, Buffer> {
  const rows = new Map<string, Buffer>()
  let bytes: Buffer
  try {
    bytes = readFileSync(path)
  } catch {
    return rows
  }
  const end = bytes.length - digestBytes
  if (end < magic.length || (end - magic.length) % rowBytes !== 0 || !bytes.subarray(0, magic.length).equals(magic)) return rows
  if (!createHash('sha256').update(bytes.subarray(0, end)).digest().equals(bytes.subarray(end))) return rows
  for (let at = magic.length; at < end; at += rowBytes) rows.set(bytes.toString('latin1', at, at + 32), bytes.subarray(at, at + rowBytes))
  return rows
}
