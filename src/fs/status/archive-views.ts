/** The archives in other orders: as links by series and by day. */
import { byteString, bytesOf } from '../../engine/text.js'
import type { ShownArchive } from '../archives-dir.js'

/** A directory of the views: names (byte strings) to link targets or further directories. */
export type View = Map<string, Buffer | View>

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
    let found = parent.get(name)
    if (!(found instanceof Map)) parent.set(name, found = new Map<string, Buffer | View>())
    return found as View
  }
  for (const { name, files } of archives) {
    const date = new Date(Number(files.info.timeNs / 1_000_000n))
    const two = (value: number): string => String(value).padStart(2, '0')
    const day = below(below(below(view, String(date.getFullYear()).padStart(4, '0')), two(date.getMonth() + 1)), two(date.getDate()))
    day.set(byteString(name), linkTo(name, 5))
  }
  return view
}

function free(view: View, name: string): string {
  return name === '.' || name === '..' || view.has(name) ? `${name}~` : name
}

/** Up from a link's directory to the root. */
function linkTo(name: Uint8Array, levels: number): Buffer {
  return Buffer.concat([bytesOf('../'.repeat(levels)), name])
}
