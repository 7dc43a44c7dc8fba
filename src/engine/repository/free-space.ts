/** The room that a commit and the compaction after it demand on the disk (repository.md §4). */
import { statfsSync } from 'node:fs'
import { maxEntryBytes } from '../constants.js'
import { messageOf } from '../errors.js'
import type { Log } from '../log.js'
import { formatSize } from '../size-text.js'
import type { RepositoryConfig } from './config.js'
import { InsufficientFreeSpace } from './errors.js'
import type { Segments } from './segments.js'
import { indexFileBytes, type RepositoryState } from './state.js'

/** InsufficientFreeSpace. What cannot be told is a warning. */
export function ensureFreeSpace(path: string, { index, hints }: RepositoryState, segments: Segments, config: RepositoryConfig, log: Log): void {
  let required = 4 * indexFileBytes(index) + 10 * (hints.segments.size + hints.compact.size) + 4096 + config.additionalFreeSpace
  if (!config.appendOnly) {
    const fullSegment = config.maxSegmentSize + maxEntryBytes
    let copied = fullSegment
    if (hints.compact.size < 10) {
      copied = 0
      for (const [segment, free] of hints.compact) copied += Math.max(0, segments.size(segment) - free)
    }
    required += Math.min(copied, fullSegment)
  }
  let available: number
  try {
    const { bavail, bsize } = statfsSync(path)
    available = bavail * bsize
  } catch (error) {
    log.write('warning', 'borg.repository', `Failed to check free space before committing: ${messageOf(error)}`)
    return
  }
  if (available < required) throw new InsufficientFreeSpace(path, `(required: ${formatSize(required)}, available: ${formatSize(available)})`)
}
