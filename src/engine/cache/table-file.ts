/** Hash tables of the cache folder as files: header and buckets, guarded by a digest that is kept elsewhere (repository.md §5). */
import type { HashTable } from '../hashindex/hash-table.js'
import { replaceFile, writePieces } from '../platform/save-file.js'
import { FileDigest } from '../repository/integrity.js'
import { openTable, tableBytes } from '../repository/table-file.js'

/**
 * `name`: as the digest has it. `expected`: the final digest, undefined where there is none to compare with. IntegrityError
 * for a damaged file; host errors for one that cannot be read. A large table stays in its file: close it.
 */
export function readTable(path: string, name: string, valueWords: number, expected: string | undefined): HashTable {
  return openTable({ path, name, valueWords, expected }, { trusting: false }).table
}

/** Replaces the file and returns the text of its digests. Its name is not durable before its folder is synced. A table on file goes on in the new one. */
export function writeTable(path: string, name: string, table: HashTable): string {
  const digest = new FileDigest(name)
  replaceFile(path, fd => writePieces(fd, tableBytes(table, digest)), { mode: 0o600, durable: 'content' })
  table.movedTo(path)
  return digest.json()
}

export function tableDigest(name: string, table: { readonly header: Buffer; readonly bytes: Uint8Array }): string {
  const digest = new FileDigest(name)
  digest.update(table.header)
  digest.part('HashHeader')
  digest.update(table.bytes)
  digest.part('final')
  return digest.json()
}
