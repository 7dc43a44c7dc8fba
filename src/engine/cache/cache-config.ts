/**
 * CACHE/ID/config: for which state of the repository the cache's files are, and their digests. Borg's own file; what is not
 * known here is kept. Keys are lower case, as Python's configparser makes them.
 */
import { readFileSync } from 'node:fs'
import { IntegrityError } from '../errors.js'
import { saveFile } from '../platform/save-file.js'

export class CacheConfig {
  readonly path: string
  readonly #sections: Map<string, Map<string, string>>

  private constructor(path: string, sections: Map<string, Map<string, string>>) {
    this.path = path
    this.#sections = sections
  }

  /** Of an empty cache. */
  static empty(path: string, repositoryId: string): CacheConfig {
    return new CacheConfig(path, new Map([
      ['cache', new Map([['version', '1'], ['repository', repositoryId], ['manifest', '']])],
      ['integrity', new Map([['manifest', '']])],
    ]))
  }

  /** IntegrityError if it is not the config of this repository's cache; ENOENT if it is missing. */
  static load(path: string, repositoryId: string): CacheConfig {
    const config = new CacheConfig(path, parse(readFileSync(path, 'utf8')))
    const version = config.get('cache', 'version')
    if (version !== '1') throw new IntegrityError(version === undefined ? 'it does not look like the config of a Borg cache' : `its version is ${version} instead of 1`)
    if (config.get('cache', 'repository') !== repositoryId) throw new IntegrityError('it belongs to another repository')
    if (!/^(?:[0-9a-f]{64})?$/.test(config.get('cache', 'manifest') ?? '-')) throw new IntegrityError('its manifest is no id')
    return config
  }

  get(section: string, key: string): string | undefined {
    return this.#sections.get(section)?.get(key)
  }

  /** undefined removes the line. */
  set(section: string, key: string, value: string | undefined): void {
    let lines = this.#sections.get(section)
    if (!lines) this.#sections.set(section, (lines = new Map()))
    if (value === undefined) lines.delete(key)
    else lines.set(key, value)
  }

  /** Id in hex of the manifest that the chunks index is for; empty for none. */
  get manifest(): string {
    return this.get('cache', 'manifest') ?? ''
  }

  /**
   * The stored digests of a file, if they can be relied upon: old Borg versions change the cache and leave them as they are,
   * which shows by the two manifest ids.
   */
  digests(name: string): string | undefined {
    return this.get('integrity', 'manifest') === this.manifest ? this.get('integrity', name) : undefined
  }

  /** Names of a suffix with capitals cannot be kept apart in this file: they go unverified, with Borg too. */
  setDigests(name: string, json: string | undefined): void {
    if (name === name.toLowerCase()) this.set('integrity', name, json)
  }

  setManifest(id: string): void {
    if (this.get('integrity', 'manifest') !== this.manifest) this.#sections.set('integrity', new Map())
    this.set('cache', 'manifest', id)
    this.set('integrity', 'manifest', id)
  }

  list(section: string, key: string): string[] {
    return (this.get(section, key) ?? '').split(/ *, */).filter(word => word !== '')
  }

  /** Whole at any time; not durable before its folder is synced. */
  save(): void {
    let text = ''
    for (const [name, lines] of this.#sections) {
      text += `[${name}]\n`
      for (const [key, value] of lines) text += `${key} = ${value}\n`
      text += '\n'
    }
    saveFile(this.path, Buffer.from(text), { mode: 0o600, durable: 'content' })
  }
}

function parse(text: string): Map<string, Map<string, string>> {
  const sections = new Map<string, Map<string, string>>()
  let lines: Map<string, string> | undefined
  let last: string | undefined
  for (const line of text.split('\n')) {
    if (/^\s*(?:[#;].*)?$/.test(line)) continue
    const header = /^\[(.+)\]\s*$/.exec(line)
    const pair = /^([^\s=:][^=:]*?)\s*[=:]\s*(.*?)\s*$/.exec(line)
    if (header) {
      lines = new Map()
      sections.set(header[1]!, lines)
      last = undefined
    } else if (/^\s/.test(line) && lines && last !== undefined) lines.set(last, `${lines.get(last)!} ${line.trim()}`)
    else if (pair && lines) lines.set((last = pair[1]!.toLowerCase()), pair[2]!)
    else throw new IntegrityError('it is no list of sections and keys')
  }
  return sections
}
