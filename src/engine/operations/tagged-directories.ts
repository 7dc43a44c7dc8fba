/** Directories of an archive that a file in them excludes: CACHEDIR.TAG by its content, others by their name (`recreate`). */
import type { ArchiveReader } from '../archive/archive-reader.js'
import type { Item } from '../archive/item.js'
import type { Matcher, PatternRule } from '../patterns/matcher.js'
import type { Pattern } from '../patterns/pattern.js'
import { typeFile, typeMask } from '../platform/attributes.js'
import type { ChunkReader } from '../store/chunk-reader.js'
import { escapedText } from '../text.js'
import { cacheTagContent, cacheTagName } from './walk.js'

export interface TagOptions {
  readonly excludeCaches: boolean
  readonly excludeIfPresent: readonly string[]
  /** The directory itself and the tag stay. */
  readonly keepExcludeTags: boolean
}

/** `matcher`, and after all that it says the tagged directories excluded. Costs a pass over the items, two with excludeCaches. */
export async function withTaggedDirectories(archive: ArchiveReader, reader: ChunkReader, matcher: Matcher, options: TagOptions): Promise<Matcher> {
  const kept: PatternRule[] = [], excluded: PatternRule[] = []
  const exclude = (folder: string, tag: string): void => {
    if (options.keepExcludeTags) {
      kept.push({ command: 'include', pattern: literally(path => path === tag || path.startsWith(`${tag}/`), tag) })
      excluded.push({ command: 'excludeNoRecurse', pattern: literally(folder === '' ? () => true : path => path.startsWith(`${folder}/`), folder) })
    } else if (folder !== '') excluded.push({ command: 'excludeNoRecurse', pattern: literally(path => path === folder || path.startsWith(`${folder}/`), folder) })
  }
  // The content of a tag may stand at another name of the same file, which comes before it.
  const masters = options.excludeCaches ? await firstNames(archive, reader) : new Map<string, Item | undefined>()
  for await (const item of archive.items({ reader })) {
    const path = escapedText(item.path)
    const cut = path.lastIndexOf('/')
    const [folder, name] = [path.slice(0, Math.max(0, cut)), path.slice(cut + 1)]
    if (masters.has(path)) masters.set(path, item)
    if (name !== cacheTagName && !matcher.decide(path).included) continue
    if (options.excludeIfPresent.includes(name)) exclude(folder, path)
    else if (options.excludeCaches && name === cacheTagName && (item.mode & typeMask) === typeFile) {
      const chunks = item.chunks ?? (item.source && masters.get(escapedText(item.source)))?.chunks
      if (!chunks || chunks.length === 0) continue
      let head = Buffer.alloc(0)
      for (let index = 0; index < chunks.length && head.length < cacheTagContent.length; index++) head = Buffer.concat([head, await reader.get(chunks.id(index), chunks.size(index))])
      if (head.subarray(0, cacheTagContent.length).equals(cacheTagContent)) exclude(folder, path)
    }
  }
  return kept.length + excluded.length === 0 ? matcher : matcher.followedBy([...kept, ...excluded])
}

async function firstNames(archive: ArchiveReader, reader: ChunkReader): Promise<Map<string, Item | undefined>> {
  const names = new Map<string, Item | undefined>()
  for await (const item of archive.items({ reader })) {
    if ((item.mode & typeMask) !== typeFile || item.chunks || !item.source) continue
    const path = escapedText(item.path)
    if (path.slice(path.lastIndexOf('/') + 1) === cacheTagName) names.set(escapedText(item.source), undefined)
  }
  return names
}

function literally(matches: (path: string) => boolean, text: string): Pattern {
  return { style: 'pp', text, matches }
}
