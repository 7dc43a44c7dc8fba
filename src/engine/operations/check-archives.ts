/**
 * The archives' phase of `check` (archive.md §10). It finds and changes nothing; what a repair does follows from what was found, and
 * is done at the end, all at once.
 */
import type { ArchiveInfo, Manifest } from '../archive/manifest.js'
import type { LocalRepository } from '../repository/local-repository.js'
import { Workers } from '../store/workers.js'
import { bytesOf, shownText } from '../text.js'
import { examineArchive, findWrongSizes } from './check/archive.js'
import type { ArchivesCheckListener } from './check/finding.js'
import { checkManifest } from './check/manifest.js'
import { openForCheck } from './check/open.js'
import { countUnused, repairArchives, type Unused } from './check/repair.js'
import { CheckState } from './check/state.js'
import { verifyData } from './check/verify-data.js'
import type { LoadKeyOptions } from './open.js'
import { rememberCommit } from './remember-commit.js'

export interface ArchivesCheckOptions {
  /** plan: says what repair would do, and changes nothing. */
  readonly mode: 'plain' | 'repair' | 'plan'
  /** Opens every object. */
  readonly verifyData: boolean
  /** The repository's phase has verified all CRCs just now. */
  readonly crcsVerified: boolean
  /** One archive by its byte string, or some of them, or all in an order; orphans are only looked for if it is `all`. */
  readonly selection: { readonly archive: string } | { readonly all: boolean; choose(archives: Iterable<ArchiveInfo>): Promise<readonly ArchiveInfo[]> }
  readonly key: LoadKeyOptions
  readonly signal?: AbortSignal
}

export interface ArchivesCheckResult {
  /** Nothing is wrong, or no longer. */
  readonly sound: boolean
  /** Mode plan: one sentence for each thing that repair does. */
  readonly planned: readonly string[]
}

/**
 * The repository is at the state that its own phase left; for a repair it is locked exclusively. Key and passphrase errors;
 * IntegrityError where the key is not that of the repository.
 */
export async function checkArchives(repository: LocalRepository, options: ArchivesCheckOptions, listener: ArchivesCheckListener): Promise<ArchivesCheckResult> {
  const { mode, signal } = options
  listener.log?.('info', 'Starting archive consistency check...')
  if (repository.objectCount === 0) {
    listener.log?.('error', 'Repository contains no apparent data at all, cannot continue check/repair.')
    return { sound: false, planned: [] }
  }
  const { key, objects, security } = await openForCheck(repository, options.key, mode === 'repair')
  const workers = new Workers({ key })
  try {
    const state = new CheckState({ repository, key, objects, workers, listener, signal })
    if (options.verifyData) await verifyData(state, { mode, checkCrc: !options.crcsVerified })
    const manifest = await checkManifest(state)
    // What this client saw last must not seem newer than a manifest that is put together now.
    if (manifest.timestamp === '') manifest.timestamp = security.lastTimestamp ?? ''
    const allExamined = await examineArchives(state, manifest, options)
    const unused = allExamined ? findOrphans(state) : undefined
    if (!unused) state.say('info', 'Orphaned objects check skipped (needs all archives checked).')
    if (mode === 'repair') {
      await repairArchives(state, manifest, { deleteUnused: unused !== undefined, committing: () => state.say('info', 'Committing repo.') })
      if (security.known) rememberCommit({ repository, key, manifest, security })
    }
    state.say(state.problems ? 'error' : 'info', `Archive consistency check complete, ${state.problems ? 'problems found' : 'no problems found'}.`)
    return { sound: mode === 'repair' || !state.problems, planned: mode === 'plan' ? plannedSteps(state, unused) : [] }
  } finally {
    await workers.close()
    key.wipe()
  }
}

/** True if all archives were examined. */
async function examineArchives(state: CheckState, manifest: Manifest, { selection, signal }: ArchivesCheckOptions): Promise<boolean> {
  const { listener } = state.context
  let infos: readonly ArchiveInfo[]
  if ('archive' in selection) {
    const { archive } = selection
    const info = manifest.archives.get(archive)
    if (!info) {
      state.report({ severity: 'error', about: { kind: 'archive', archive }, message: `Archive '${shownText(bytesOf(archive))}' not found.` })
      return false
    }
    infos = [info]
  } else infos = await selection.choose(manifest.archives.values())
  for (const [index, info] of infos.entries()) {
    signal?.throwIfAborted()
    listener.progress?.('check.rebuild_refcounts', index, infos.length)
    state.say('info', `Analyzing archive ${shownText(bytesOf(info.name))} (${index + 1}/${infos.length})`)
    await examineArchive(state, info, manifest.itemKeys)
  }
  if (state.wrongSizes.size > 0) {
    for (const info of infos) if (!state.plan.rewrites.has(info.name) && !state.plan.removals.has(info.name)) await findWrongSizes(state, info, manifest.itemKeys)
  }
  listener.progressFinished?.('check.rebuild_refcounts')
  return 'all' in selection && selection.all
}

function findOrphans(state: CheckState): Unused {
  const unused = countUnused(state)
  if (unused.orphaned > 0) {
    state.report({ severity: 'error', about: { kind: 'repository' }, message: `${unused.orphaned} orphaned objects found!`, repair: 'they are deleted' })
  }
  return unused
}

function plannedSteps(state: CheckState, unused: Unused | undefined): string[] {
  const { defects, zeroChunks, rewrites, removals } = state.plan
  const steps: string[] = []
  const step = (count: number, text: string): void => {
    if (count > 0) steps.push(text)
  }
  step(defects.size, `${defects.size} defect objects are deleted.`)
  step(zeroChunks.size, `${zeroChunks.size} all-zero replacement chunks are stored.`)
  for (const name of removals) steps.push(`Archive ${shownText(bytesOf(name))} is removed from the manifest.`)
  for (const [name, { itemsLost, filesZeroed, filesHealed, listsCorrected }] of rewrites) {
    const facts = [
      [itemsLost, 'places where items are lost'], [filesZeroed, 'files with zeros for missing chunks'], [filesHealed, 'files healed'], [listsCorrected, 'wrong sizes corrected'],
    ].filter(([count]) => Number(count) > 0).map(([count, text]) => `${count} ${text}`)
    steps.push(`Archive ${shownText(bytesOf(name))} is written anew${facts.length > 0 ? `: ${facts.join(', ')}` : ''}.`)
  }
  if (unused) step(unused.orphaned + unused.superseded, `${unused.orphaned} orphaned and ${unused.superseded} superseded objects are deleted.`)
  steps.push(steps.length > 0 ? 'The manifest is written and the repository committed.' : 'Nothing needs repair: only the manifest is written anew.')
  return steps
}
