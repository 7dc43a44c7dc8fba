/** What a mount shows beside its archives, put together for whichever transport serves it. */
import type { DirectoryLoans, KernelNotices, TreeAnswers } from './core.js'
import type { EngineClient } from './engine-client.js'
import type { MountView } from './engine-port.js'
import { Incoming, type IncomingOptions } from './incoming/incoming.js'
import { newestOf } from './incoming/series.js'
import { shownPath, type TreeListener, type Trees } from './incoming/trees.js'
import { Events } from './status/events.js'
import { Report, type ReportFacts } from './status/report.js'
import { eventsName, StatusDir } from './status/status-dir.js'
import type { Subtree } from './subtree.js'
import { type ArchiveChanges, VirtualFs } from './virtual-fs.js'

export interface DriveParts {
  /** Absent where nothing can be written. */
  readonly incoming: IncomingOptions | undefined
  readonly live: IncomingOptions | undefined
  /** Whether archives can be changed as directories. Absent where nothing can be written. */
  readonly changes: ArchiveChanges | undefined
  /** Absent for a narrowed view, which is exactly Borg's. */
  readonly report: ReportFacts | undefined
}

/** The filesystem, and its answer to the end: `client.onFinish` commits what is staged. */
export function makeDrive(view: MountView, { incoming: options, live: liveOptions, changes, report: facts }: DriveParts, client: EngineClient, notices: KernelNotices, answers?: TreeAnswers, loans?: DirectoryLoans): VirtualFs {
  const parts = new Map<string, Subtree>()
  const events = new Events()
  const listener: TreeListener = { state: (tree, text) => events.add(`${shownPath(tree)}: ${text}`) }
  const incoming = options && new Incoming({ ...options, putsOff: true }, client, notices, listener, () => fs.cache, loans)
  if (incoming) parts.set('incoming', incoming)
  const live = liveOptions && new Incoming({ ...liveOptions, putsOff: true, newest: series => newestOf(view.archives, series)?.id }, client, notices, listener, () => fs.cache, loans)
  if (live) parts.set('live', live)
  const places = [incoming, live].filter(part => part !== undefined)
  for (const place of places) place.neighbours = places
  const trees = [incoming, live].flatMap(part => part?.trees ?? [])
  if (facts) {
    const report = new Report(facts, trees, () => fs.cache, () => {
      const { archives, openFiles } = fs.counts
      const staged = [incoming, live].flatMap(part => part?.counts ?? [])
      return {
        archives, staged: staged.reduce((sum, { nodes }) => sum + nodes, 0), open_files: staged.reduce((sum, counts) => sum + counts.openFiles, openFiles),
      }
    })
    parts.set('.borgfs', new StatusDir({ uid: view.uid, gid: view.gid, timeNs: view.mountTimeNs }, [
      { name: 'status', content: () => report.text() }, { name: 'status.json', content: () => report.json() }, { name: eventsName, content: () => events.content },
    ], notices))
  }
  const fs = new VirtualFs({ view, client, notices, answers, parts, changes, tick: () => tidyStash(places, live !== undefined, client) })
  client.onFinish = () => commitAll(trees, [], failures => allDurable(places, () => client.finished([...failures, ...places.flatMap(({ loss }) => loss ?? [])])))
  return fs
}

/**
 * After archives were made or trees dropped: what nobody needs any more of the stash goes. Not while the cutter puts something there that is
 * not known here yet. Without live/ nobody knows what is staged there: then only what this mount put into the stash.
 */
function tidyStash(places: readonly Incoming[], complete: boolean, client: EngineClient): void {
  if (!places.some(({ trees }) => trees.stashChanged) || places.some(({ isCutting }) => isCutting)) return
  for (const { trees } of places) trees.stashChanged = false
  client.request({ kind: 'keep-stashed', ids: Buffer.concat(places.map(place => place.neededIds())), own: !complete }, (error, bytes) => {
    if (!error) for (const place of places) place.stashBytes = bytes
  })
}

/** What stays staged is durable: a machine that is switched off now did not fail. */
function allDurable([first, ...rest]: readonly Incoming[], done: () => void): void {
  if (!first) return done()
  first.whenDurable(() => allDurable(rest, done))
}

/** One place after the other. */
function commitAll([first, ...rest]: readonly Trees[], failures: readonly string[], done: (failures: readonly string[]) => void): void {
  if (!first) return done(failures)
  first.commitAll(more => commitAll(rest, [...failures, ...more], done))
}
