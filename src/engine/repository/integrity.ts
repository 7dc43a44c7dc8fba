/** Digests of the state files (repository.md §5): cumulative XXH64 over name, content and the names of the parts. */
import { MsgReader, pack } from '../msgpack.js'
import { native } from '../native.js'

/** What digests are made with is loaded: without it this fails, and not the middle of some work. */
export async function loadIntegrity(): Promise<void> {
  await Promise.resolve(native())
}

/** The digest of one file, fed in the order of its bytes. */
export class FileDigest {
  readonly #state = native().xxh64Begin()
  #position = 0
  readonly digests: Record<string, string> = {}

  /** `name`: as in the integrity data, such as `index.5`. */
  constructor(name: string) {
    this.#text(name)
  }

  update(bytes: Uint8Array): void {
    native().xxh64Update(this.#state, bytes)
    this.#position += bytes.length
  }

  /** Ends a part here. */
  part(name: string): void {
    this.#text(name, String(this.#position))
    this.digests[name] = hexOf(this.#state)
  }

  #text(name: string, position = ''): void {
    native().xxh64Update(this.#state, Buffer.from(String(name.length).padStart(10) + name + position))
  }

  /** The JSON text that integrity data holds. */
  json(): string {
    return JSON.stringify({ algorithm: 'XXH64', digests: this.digests })
  }
}

function hexOf(state: Buffer): string {
  return native().xxh64Digest(state).toString(16).padStart(16, '0')
}

/** integrity.T: JSON texts by `index` and `hints`. */
export function packIntegrity(hints: string, index: string): Buffer {
  return pack(new Map<string, number | Buffer>([['version', 2], ['hints', Buffer.from(hints)], ['index', Buffer.from(index)]]))
}

/** JSON texts by name; empty if the version is unknown (then nothing is verified). MsgpackError for damage. */
export function unpackIntegrity(bytes: Buffer): Map<string, string> {
  const reader = new MsgReader(bytes)
  const found = new Map<string, string>()
  let version: number | undefined
  for (let count = reader.mapHeader(); count > 0; count--) {
    const name = reader.rawByteString()
    if (name === 'version') version = reader.number()
    else found.set(name, reader.raw().toString('utf8'))
  }
  return version === 2 ? found : new Map()
}

/** The `final` digest of integrity data, undefined if it is no XXH64 or malformed: then the file is not verified. */
export function finalDigest(json: string | undefined): string | undefined {
  if (json === undefined) return undefined
  try {
    const parsed = JSON.parse(json) as { algorithm?: unknown; digests?: Record<string, unknown> }
    const final = parsed.digests?.final
    return parsed.algorithm === 'XXH64' && typeof final === 'string' ? final : undefined
  } catch {
    return undefined
  }
}

/** A running XXH64, for hashes of file contents. */
export async function streamingXxh64(): Promise<{ update(bytes: Uint8Array): void; digest(): string }> {
  await loadIntegrity()
  const state = native().xxh64Begin()
  return { update: bytes => native().xxh64Update(state, bytes), digest: () => hexOf(state) }
}
