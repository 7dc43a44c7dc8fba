/** Hash tables of the cache folder as files: header and buckets, guarded by a digest that is kept elsewhere (repository.md §5). */
import { closeSync, fstatSync, openSync, readSync } from 'node:fs'
import { IntegrityError } from '../errors.js'
import { HashTable, headerBytes } from '../hashindex/hash-table.js'
import { saveFile } from '../platform/save-file.js'
import { FileDigest } from '../repository/integrity.js'

/**
 * `name`: as the digest has it. `expected`: the final digest, undefined where there is none to compare with. IntegrityError
 * for a damaged file; host errors for one that cannot be read. loadIntegrity was awaited before.
 */
export function readTable(path: string, name: string, valueWords: number, expected: string | undefined): HashTable {
  const fd = openSync(path, 'r')
  try {
    const digest = new FileDigest(name)
    const header = Buffer.alloc(headerBytes)
    if (readSync(fd, header, 0, header.length, 0) !== header.length) throw new IntegrityError('it ends early')
    digest.update(header)
    digest.part('HashHeader')
    const table = HashTable.load(valueWords, header, fstatSync(fd).size, into => {
      for (let done = 0; done < into.length; ) {
        const count = readSync(fd, into, done, into.length - done, headerBytes + done)
        if (count === 0) throw new IntegrityError('it ends early')
        done += count
      }
      if (expected !== undefined) digest.update(into)
    })
    if (expected !== undefined) {
      digest.part('final')
      if (digest.digests.final !== expected) throw new IntegrityError('its digest does not fit')
    }
    return table
  } finally {
    closeSync(fd)
  }
}

/** Replaces the file and returns the text of its digests. */
export function writeTable(path: string, name: string, table: { readonly header: Buffer; readonly bytes: Uint8Array }): string {
  saveFile(path, [table.header, table.bytes], { mode: 0o600 })
  return tableDigest(name, table)
}

export function tableDigest(name: string, table: { readonly header: Buffer; readonly bytes: Uint8Array }): string {
  const digest = new FileDigest(name)
  digest.update(table.header)
  digest.part('HashHeader')
  digest.update(table.bytes)
  digest.part('final')
  return digest.json()
}
