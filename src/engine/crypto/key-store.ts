/** Where the key blob of a repository lies and what takes its place: key file or repository config (crypto.md §5, §7). */
import { readFileSync, realpathSync } from 'node:fs'
import { RepoKeyNotFoundError, UnencryptedRepo, UnsupportedPayloadError } from './errors.js'
import { isKeyBlob, keyBlobOf } from './key-blob.js'
import { existingKeyfile, keyfileHeader, locateKeyfile, newKeyfilePath, type KeyfilePlaces } from './keyfile.js'
import { type KeyType, keyTypeOf } from './key-types.js'
import { saveFile } from '../platform/save-file.js'

/** A repository as a holder of keys. */
export interface KeyHolder {
  readonly id: Buffer
  readonly location: string
  /** The base64 text, undefined if there is none. */
  loadKey(): Promise<string | undefined>
  saveKey(text: string): Promise<void>
}

/** How the location was typed: a new key file is named by it. */
export interface TypedLocation {
  readonly path: string
  readonly host?: string | undefined
}

export class KeyStore {
  readonly type: KeyType
  readonly #holder: KeyHolder
  readonly #places: KeyfilePlaces

  /** `object`: any stored object of the repository, for its type byte. UnencryptedRepo, UnsupportedPayloadError. */
  constructor(holder: KeyHolder, object: Uint8Array, places: KeyfilePlaces) {
    const type = keyTypeOf(object[0] ?? -1)
    if (!type) throw new UnsupportedPayloadError(object[0] ?? -1)
    if (type.kept === 'nowhere') throw new UnencryptedRepo()
    this.type = type
    this.#holder = holder
    this.#places = places
  }

  /** The base64 lines as they are stored, with a final newline or without. `file` for modes with key files. */
  async load(): Promise<{ text: string; file: string | undefined }> {
    if (this.type.kept === 'keyfile') {
      const path = locateKeyfile(this.#places, this.#holder.id, this.#holder.location)
      return { text: bodyOf(readFileSync(path, 'latin1')), file: path }
    }
    const text = await this.#holder.loadKey()
    if (text === undefined) throw new RepoKeyNotFoundError(this.#holder.location)
    return { text, file: undefined }
  }

  /** The text of a key file, whichever place the key has: what export gives away. */
  async exported(): Promise<string> {
    return completeLine(keyfileHeader(this.#holder.id) + (await this.load()).text)
  }

  /**
   * Puts a key where this mode keeps it: the config, or the key file that there is, or a new one. The former key is replaced in
   * one step, so a crash leaves one of the two. A sound key is never given up for bytes that are none: false then.
   */
  async store(text: string, typed: TypedLocation): Promise<boolean> {
    if (!isKeyBlob(keyBlobOf(text)) && (await this.#holdsKey())) return false
    if (this.type.kept === 'repository') {
      await this.#holder.saveKey(text)
      return true
    }
    const path = existingKeyfile(this.#places, this.#holder.id) ?? newKeyfilePath(this.#places, typed.path, typed.host)
    saveFile(realPath(path), Buffer.from(completeLine(keyfileHeader(this.#holder.id) + text), 'latin1'), { mode: 0o600 })
    return true
  }

  async #holdsKey(): Promise<boolean> {
    try {
      return isKeyBlob(keyBlobOf((await this.load()).text))
    } catch {
      return false
    }
  }
}

/** What follows the first line, line ends as in any text. */
function bodyOf(content: string): string {
  const text = content.replace(/\r\n?/g, '\n')
  const end = text.indexOf('\n')
  return end < 0 ? '' : text.slice(end + 1)
}

function completeLine(text: string): string {
  return text.endsWith('\n') ? text : `${text}\n`
}

/** A key file may be a symlink to where it really is kept: that one is replaced. */
function realPath(path: string): string {
  try {
    return realpathSync(path)
  } catch {
    return path
  }
}
