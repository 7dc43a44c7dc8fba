/**
 * Hash tables as files, guarded by a digest that is kept elsewhere (repository.md §5). Small ones are read whole. Large ones stay
 * where they are: verified by one pass, or not yet, for readers who notice by other means when they are led astray.
 */
import { closeSync, fstatSync, openSync, readSync } from 'node:fs'
import { IntegrityError } from '../errors.js'
import { headerBytes } from '../hashindex/bucket-layout.js'
import { HashTable } from '../hashindex/hash-table.js'
import { FileDigest } from './integrity.js'

/** Files up to this size are sooner read than looked into. */
const smallTableBytes = 8 << 20

export interface TableFile {
  readonly path: string
  /** As the digest has it. */
  readonly name: string
  readonly valueWords: number
  /** The final digest, undefined where there is none to compare with. */
  readonly expected: string | undefined
}

/**
 * The table of a file, `verified` or to be verified by verifyTable before it is changed or believed. IntegrityError for damage,
 * host errors for a file that cannot be read. `trusting`: a large file is not verified.
 */
export function openTable(file: TableFile, options: { trusting: boolean; smallBytes?: number }): { readonly table: HashTable; readonly verified: boolean } {
  const fd = openSync(file.path, 'r')
  try {
    const fileBytes = fstatSync(fd).size
    if (fileBytes <= (options.smallBytes ?? smallTableBytes)) return { table: readWhole(file, fd, fileBytes), verified: true }
  } finally {
    closeSync(fd)
  }
  const table = HashTable.onFile(file.path, file.valueWords)
  if (options.trusting) return { table, verified: false }
  try {
    verifyTable(file, table)
  } catch (error) {
    table.close()
    throw error
  }
  return { table, verified: true }
}

/** The whole pass over a table that openTable left unverified. IntegrityError, host errors. */
export function verifyTable({ name, expected }: TableFile, table: HashTable): void {
  const digest = new FileDigest(name)
  digest.update(table.header())
  digest.part('HashHeader')
  table.verify(bytes => {
    if (expected !== undefined) digest.update(bytes)
  }, () => compare(digest, expected))
}

function readWhole({ name, valueWords, expected }: TableFile, fd: number, fileBytes: number): HashTable {
  const digest = new FileDigest(name)
  const header = Buffer.alloc(headerBytes)
  if (readSync(fd, header, 0, header.length, 0) !== header.length) throw new IntegrityError('it ends early')
  digest.update(header)
  digest.part('HashHeader')
  return HashTable.load(valueWords, header, fileBytes, into => {
    for (let done = 0; done < into.length; ) {
      const count = readSync(fd, into, done, into.length - done, headerBytes + done)
      if (count === 0) throw new IntegrityError('it ends early')
      done += count
    }
    if (expected !== undefined) digest.update(into)
    compare(digest, expected)
  })
}

function compare(digest: FileDigest, expected: string | undefined): void {
  digest.part('final')
  if (expected !== undefined && digest.digests.final !== expected) throw new IntegrityError('its digest does not fit')
}

/** The bytes of a table's file, in pieces; `digest` has seen them all at the end. Nothing may change meanwhile. */
export function* tableBytes(table: HashTable, digest: FileDigest): Generator<Uint8Array> {
  const header = table.header()
  digest.update(header)
  digest.part('HashHeader')
  yield header
  for (const block of table.blocks()) {
    digest.update(block)
    yield block
  }
  digest.part('final')
}
