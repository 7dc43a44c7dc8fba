/**
 * What was chosen once, when the mount began, as it is now: other clients rename archives and give them comments, and then they have other ids.
 * What stays is the moment at which an archive was begun.
 */
import type { ArchiveInfo } from '../engine/archive/manifest.js'

/** Of `chosen`, in that order, what `found` still has. `byName`: also what has taken a name. */
export function chosenNow(chosen: readonly ArchiveInfo[], found: readonly ArchiveInfo[], { byName }: { readonly byName: boolean }): ArchiveInfo[] {
  const by = <Key>(key: (info: ArchiveInfo) => Key): Map<Key, ArchiveInfo> => new Map(found.map(info => [key(info), info]))
  const ids = by(({ id }) => id.toString('latin1')), names = byName ? by(({ name }) => name) : undefined, times = by(({ time }) => time)
  const now = chosen.map(info => ids.get(info.id.toString('latin1')) ?? names?.get(info.name) ?? times.get(info.time))
  return [...new Set(now)].filter(info => info !== undefined)
}
