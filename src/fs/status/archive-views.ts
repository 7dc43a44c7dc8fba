/** The archives in other orders: as links by series and by day, as snapshots by the second, and all in one. */
import { byteString, bytesOf } from '../../engine/text.js'
import type { ShownArchive, ShownArchives } from '../archives-dir.js'
import type { Answer, Call } from '../core.js'
import type { Subtree } from '../subtree.js'
import type { Entry, Ino } from '../types.js'

/** A directory of the views: names (byte strings) to link targets, further directories (perhaps made when somebody looks) or files of archives. */
export type View = Map<string, Shown>
export type Shown = Buffer | View | (() => View) | ArchivePlace

/** Where files of archives are, which have inodes of their own. */
export interface ArchivePlace {
  /** As shown in the directory `parent` by this name, a byte string. Undefined if it is gone. */
  at(parent: Ino, name: string): (Subtree & { resolveRoot(call: Call<Entry>): Answer<Entry> }) | undefined
}

/** A date at the end of a name, with what joins it, and whatever follows: `laptop-2026-05-01T10:00:00`, `db_20260501.1`. */
const dated = /^(.+?)[-_.@: ]*(?<!\d)(?:\d{4}-\d\d-\d\d|\d{8}(?!\d)|\d{10}(?!\d)).*$/s

/** What archives of one source have in common: the name up to its date, the whole name where there is none. Byte strings. */
export function seriesOf(name: string): string {
  return dated.exec(name)?.[1] ?? name
}

/** `latest/SERIES`: the newest archive of each series. Names as the root shows them. */
export function latestView(archives: Iterable<ShownArchive>): View {
  const newest = new Map<string, ShownArchive>()
  for (const archive of archives) {
    const series = seriesOf(byteString(archive.files.info.name))
    const before = newest.get(series)
    if (!before || archive.files.info.timeNs >= before.files.info.timeNs) newest.set(series, archive)
  }
  const view: View = new Map()
  for (const [series, { name }] of newest) view.set(free(view, series), linkTo(name, 2))
  return view
}

/** `by-date/YYYY/MM/DD/ARCHIVE`, days of local time. */
export function dateView(archives: Iterable<ShownArchive>): View {
  const view: View = new Map()
  const below = (parent: View, name: string): View => {
    const found = parent.get(name)
    if (found instanceof Map) return found
    const made: View = new Map()
    parent.set(name, made)
    return made
  }
  for (const { name, files } of archives) {
    const date = new Date(Number(files.info.timeNs / 1_000_000n))
    const two = (value: number): string => String(value).padStart(2, '0')
    const day = below(below(below(view, String(date.getFullYear()).padStart(4, '0')), two(date.getMonth() + 1)), two(date.getDate()))
    day.set(byteString(name), linkTo(name, 5))
  }
  return view
}

/**
 * `snapshots/SERIES/@GMT-…`: the archives of each series, and `snapshots/@GMT-…/live/SERIES`: what live/SERIES was at that time. The names
 * are those that Samba's shadow_copy2 looks for: the first below `shadow:snapdir` for a share of one series, or of any other folder of which
 * there are archives; the second for a share of the drive or of a folder of live/. They are no links: behind one, Samba (4.17) does not show
 * the links of the archive, and does not list the directory itself.
 */
export function snapshotView(archives: ShownArchives): View {
  const bySeries = new Map<string, Map<string, ShownArchive>>()
  const byTime = new Map<string, Map<string, ShownArchive>>()
  const entered = (groups: Map<string, Map<string, ShownArchive>>, group: string): Map<string, ShownArchive> => {
    let found = groups.get(group)
    if (!found) groups.set(group, found = new Map())
    return found
  }
  // Of two in one second the later is shown.
  const inOrder = [...archives].sort((a, b) => (a.files.info.timeNs < b.files.info.timeNs ? -1 : 1))
  for (const archive of inOrder) {
    const series = seriesOf(byteString(archive.files.info.name)), time = snapshotName(archive.files.info.timeNs)
    entered(bySeries, series).set(time, archive)
    entered(byTime, time).set(series, archive)
  }
  const place = (archive: ShownArchive): ArchivePlace => ({ at: (parent, name) => archives.again(archive, parent, name) })
  const directory = (group: Map<string, ShownArchive>) => (): View => new Map(Array.from(group, ([name, archive]) => [name, place(archive)]))
  const view: View = new Map()
  for (const [time, group] of byTime) view.set(time, () => new Map([['live', directory(group)]]))
  for (const [series, group] of bySeries) view.set(free(view, series), directory(group))
  return view
}

/** The second of an archive's start, as previous versions are called in SMB. */
export function snapshotName(timeNs: bigint): string {
  const [date, time] = new Date(Number(timeNs / 1_000_000n)).toISOString().split('T')
  return `@GMT-${date!.replaceAll('-', '.')}-${time!.slice(0, 8).replaceAll(':', '.')}`
}

function free(view: View, name: string): string {
  return name === '.' || name === '..' || view.has(name) ? `${name}~` : name
}

/** Up from a link's directory to the root. */
function linkTo(name: Uint8Array, levels: number): Buffer {
  return Buffer.concat([bytesOf('../'.repeat(levels)), name])
}
