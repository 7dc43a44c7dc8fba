/**
 * What was chosen once, when the mount began, as it is now: other clients rename archives and give them comments, and then they have other ids.
 * What stays is the moment at which an archive was begun; several may have the same (`--timestamp`).
 */
import type { ArchiveInfo } from '../engine/archive/manifest.js'
import { idKey } from '../engine/ids.js'

/**
 * Of `chosen`, in that order, what `found` still has, each once. `byName`: also what has taken a name. `known`: ids, as keys, of all that there was when the
 * mount began: what still has its own is no other archive under a new one.
 */
export function chosenNow(chosen: readonly ArchiveInfo[], found: readonly ArchiveInfo[], { byName, known }: { readonly byName: boolean; readonly known: ReadonlySet<string> }): ArchiveInfo[] {
  const now = new Map<ArchiveInfo, ArchiveInfo>(), taken = new Set<ArchiveInfo>()
  const match = (key: (info: ArchiveInfo) => string, mayBe: (info: ArchiveInfo) => boolean = () => true): void => {
    const left = new Map<string, ArchiveInfo[]>()
    for (const info of found) if (!taken.has(info) && mayBe(info)) left.set(key(info), [...left.get(key(info)) ?? [], info])
    for (const info of chosen) {
      const match = now.has(info) ? undefined : left.get(key(info))?.shift()
      if (!match) continue
      now.set(info, match)
      taken.add(match)
    }
  }
  match(({ id }) => idKey(id))
  if (byName) match(({ name }) => name)
  match(({ time }) => time, ({ id }) => !known.has(idKey(id)))
  return chosen.flatMap(info => now.get(info) ?? [])
}
