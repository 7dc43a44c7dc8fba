/**
 * CACHE/ID/pre12-meta: sums over the items of archives made before Borg 1.2, which do not say them. Borg's own file, JSON by archive
 * id. An archive never changes under its id; a file that cannot be read is begun anew.
 */
import { readFileSync } from 'node:fs'
import { saveFile } from '../platform/save-file.js'
import type { ItemSums } from './item-references.js'

export interface OldSums {
  readonly files: ItemSums
  readonly parts: ItemSums
}

const fields = ['size', 'csize', 'nfiles'] as const

export class OldArchiveSums {
  readonly #path: string
  #entries: Map<string, OldSums> | undefined

  constructor(path: string) {
    this.#path = path
  }

  /** By hex id of the archive. */
  get(id: string): OldSums | undefined {
    return this.#loaded().get(id)
  }

  /** Kept at once: it took a pass over the archive. */
  set(id: string, sums: OldSums): void {
    this.#loaded().set(id, sums)
    const json: Record<string, Record<string, number>> = {}
    for (const [key, { files, parts }] of this.#loaded()) {
      json[key] = Object.fromEntries(fields.flatMap(field => [[field, files[field]], [`${field}_parts`, parts[field]]]))
    }
    saveFile(this.#path, Buffer.from(JSON.stringify(json, undefined, 4)), { mode: 0o600, durable: 'no' })
  }

  #loaded(): Map<string, OldSums> {
    return (this.#entries ??= load(this.#path))
  }
}

function load(path: string): Map<string, OldSums> {
  const entries = new Map<string, OldSums>()
  let json: unknown
  try {
    json = JSON.parse(readFileSync(path, 'utf8'))
  } catch {
    return entries
  }
  if (typeof json !== 'object' || json === null) return entries
  for (const [id, entry] of Object.entries(json as Record<string, unknown>)) {
    const sums = (suffix: string): ItemSums | undefined => {
      const [size, csize, nfiles] = fields.map(field => (entry as Record<string, unknown> | null)?.[field + suffix])
      return typeof size === 'number' && typeof csize === 'number' && typeof nfiles === 'number' ? { size, csize, nfiles } : undefined
    }
    const [files, parts] = [sums(''), sums('_parts')]
    if (files && parts) entries.set(id, { files, parts })
  }
  return entries
}
