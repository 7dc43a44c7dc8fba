/**
 * From libfuse's paths to inodes, by lookups from the root. Each lookup gives a reference, which is given back when the
 * operation is over.
 */
import type { FsCore } from '../../core.js'
import { FsError } from '../../errno.js'
import { type Entry, Errno, type Ino, type Opened } from '../../types.js'
import { answerOf } from './questions.js'

/** What bytes that are not UTF-8 have become on their way here. */
const replacement = '\ufffd'

export class Paths {
  readonly #core: FsCore

  constructor(core: FsCore) {
    this.#core = core
  }

  /** Runs `use` with the inode at `path`. FsError ENOENT and ENOTDIR as the core says. */
  async at<T>(path: string, use: (ino: Ino) => Promise<T> | T): Promise<T> {
    const held: Ino[] = []
    try {
      let ino: Ino = 1
      for (const name of path.split('/')) {
        if (name === '') continue
        ino = (await this.#step(ino, name)).attr.ino
        held.push(ino)
      }
      return await use(ino)
    } finally {
      for (const ino of held) this.#core.forget(ino, 1)
    }
  }

  /** Runs `use` with the directory of `path` and the last name, which need not be there. */
  async inside<T>(path: string, use: (parent: Ino, name: Buffer) => Promise<T> | T): Promise<T> {
    const slash = path.lastIndexOf('/')
    const name = path.slice(slash + 1)
    return await this.at(path.slice(0, slash), async (parent) => use(parent, name.includes(replacement) ? await this.#raw(parent, name) : Buffer.from(name)))
  }

  /** For new names: one that was not UTF-8 cannot be told any more, so it is refused rather than stored wrongly. */
  async insideNew<T>(path: string, use: (parent: Ino, name: Buffer) => Promise<T> | T): Promise<T> {
    if (path.slice(path.lastIndexOf('/') + 1).includes(replacement)) throw new FsError(Errno.EINVAL, `${path}: the name is not UTF-8`)
    return await this.inside(path, use)
  }

  async #step(parent: Ino, name: string): Promise<Entry> {
    const raw = name.includes(replacement) ? await this.#raw(parent, name) : Buffer.from(name)
    const entry = await answerOf<Entry>((call) => this.#core.lookup(parent, raw, call))
    if (entry.attr.ino === 0) throw new FsError(Errno.ENOENT, name)
    return entry
  }

  /** The first name in the directory that looks so; the shown one itself if there is none. */
  async #raw(parent: Ino, name: string): Promise<Buffer> {
    const names = await listing(this.#core, parent)
    return names.find(({ name: bytes }) => bytes.toString('utf8') === name)?.name ?? Buffer.from(name)
  }
}

export interface Listed {
  readonly name: Buffer
  readonly entry: Entry
}

/** All entries of a directory but `.` and `..`. */
export async function listing(core: FsCore, ino: Ino): Promise<Listed[]> {
  const found: Listed[] = []
  const { fh } = await answerOf<Opened>((call) => core.opendir(ino, call))
  try {
    await answerOf<void>((call) => core.readdir(ino, fh, 0, (name, entry) => {
      const own = Buffer.from(name)
      if (!(own[0] === 0x2e && (own.length === 1 || (own.length === 2 && own[1] === 0x2e)))) found.push({ name: own, entry })
      return true
    }, call))
  } finally {
    core.releasedir(ino, fh)
  }
  return found
}
