/** Progress of --progress: one line that is overwritten, or JSON objects (output.md §6, §7). */
import { formatSize } from './units.js'
import type { StderrLog } from './log.js'
import { shownText } from '../../engine/text.js'
import type { ProgressState } from '../../engine/operations/archive-pipeline.js'
import type { CacheStepListener, SyncListener } from '../../engine/cache/client-cache.js'

const everyMs = 200

export class ArchiveProgressLine {
  readonly #log: StderrLog
  readonly #iec: boolean
  #last = 0

  constructor(log: StderrLog, iec: boolean) {
    this.#log = log
    this.#iec = iec
  }

  update({ stats, newBytes, path }: ProgressState): void {
    const now = Date.now()
    if (now - this.#last < everyMs) return
    this.#last = now
    const name = shownText(path)
    if (this.#log.json) {
      this.#log.object({
        original_size: stats.size, compressed_size: stats.csize, deduplicated_size: newBytes, nfiles: stats.nfiles, path: name,
        time: now / 1000, type: 'archive_progress', finished: false,
      })
      return
    }
    const size = (bytes: number): string => formatSize(bytes, { iec: this.#iec })
    const head = `${size(stats.size)} O ${size(stats.csize)} C ${size(newBytes)} D ${stats.nfiles} N `
    this.#log.progressLine(fitted(head, name, width()))
  }

  finish(): void {
    if (this.#log.json) this.#log.object({ time: Date.now() / 1000, type: 'archive_progress', finished: true })
    else this.#log.clearProgress()
  }
}

let nextOperation = 1

export class PercentLine {
  readonly #log: StderrLog
  readonly #msgid: string
  readonly #operation = nextOperation++
  readonly #step: number
  #last = -1

  /** `step`: percent between two lines. */
  constructor(log: StderrLog, msgid: string, step: number) {
    this.#log = log
    this.#msgid = msgid
    this.#step = step
  }

  /** What is done before there is anything to count. */
  announce(message: string): void {
    this.#tell(message, message, 0, 0, null)
  }

  /** `shown`: the number that the JSON line tells; Borg often counts the step in hand as done there. */
  update(current: number, total: number, message: (percent: number) => string, info: readonly string[] | null, shown = current): void {
    const percent = total === 0 ? 100 : (current / total) * 100
    const at = Math.floor(percent / this.#step)
    if (at === this.#last) return
    this.#last = at
    const text = message(percent)
    this.#tell(text, text.slice(0, width()), shown, total, info)
  }

  #tell(message: string, line: string, current: number, total: number, info: readonly string[] | null): void {
    if (this.#log.json) {
      this.#log.object({ operation: this.#operation, msgid: this.#msgid, type: 'progress_percent', finished: false, time: Date.now() / 1000, message, current, total, info })
    } else this.#log.progressLine(line)
  }

  finish(): void {
    if (this.#log.json) this.#log.object({ operation: this.#operation, msgid: this.#msgid, type: 'progress_percent', finished: true, time: Date.now() / 1000 })
    else this.#log.clearProgress()
  }
}

/** What is being done with the client cache. */
export function cacheSteps(context: { readonly log: StderrLog; flag(name: string): boolean }): CacheStepListener | undefined {
  if (!context.flag('progress')) return undefined
  const { log } = context
  let operation: number | undefined
  return (group, message) => {
    if (!log.json) {
      if (message === undefined) log.clearProgress()
      else log.progressLine(message.slice(0, width()))
      return
    }
    operation ??= nextOperation++
    log.object({ ...(message !== undefined && { message }), operation, msgid: group, type: 'progress_message', finished: message === undefined, time: Date.now() / 1000 })
    if (message === undefined) operation = undefined
  }
}

/** The line of a chunks cache that is brought up to date. */
export function syncListener(context: { readonly log: StderrLog; flag(name: string): boolean }): SyncListener {
  if (!context.flag('progress')) return {}
  const line = new PercentLine(context.log, 'cache.sync', 0.1)
  return {
    progress: (done, total, archive) => line.update(done, total, percent => `${Math.round(percent).toString().padStart(3)}% Syncing chunks cache. Processing archive ${archive}`, [archive], done + 1),
    finished: () => line.finish(),
  }
}

function width(): number {
  return Number(process.env.COLUMNS) || process.stdout.columns || 80
}

/** The path is shortened in its middle, the line padded to the width. */
function fitted(head: string, path: string, columns: number): string {
  const room = columns - head.length
  if (path.length > room && room > 10) {
    const half = Math.floor((room - 3) / 2)
    path = `${path.slice(0, half)}...${path.slice(path.length - (room - 3 - half))}`
  }
  return (head + path).slice(0, columns).padEnd(columns)
}
