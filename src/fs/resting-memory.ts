/**
 * What the engine thread and the byte workers of a mount keep of memory, to be faster at the next work of its kind, and give back when none comes:
 * read-ahead and outputs, garbage that V8 sees no need to collect, and what malloc keeps of freed chunks (native/addon.cc). The thread that answers
 * the kernel takes no part. Nothing that is shown or staged depends on it.
 */
import type { Chunker } from '../engine/chunker/chunker.js'
import { native } from '../engine/native.js'
import { collectGarbage } from '../engine/shared-garbage.js'
import type { Workers } from '../engine/store/workers.js'
import type { IdleOptions } from './idle-phases.js'
import type { Cutter } from './incoming/cutter.js'
import type { RepositorySource } from './repository-source.js'

/** Less than this more than after the last time is not worth a collection: many small reads far apart must not cost one each. */
const worthBytes = 16 << 20
/** V8 frees the memory of what it collected beside, and byte workers collect in their own time. */
const trimAfterMs = 2000

export function restingMemory({ workers, source, chunker, cutter }: { workers: Workers; source: RepositorySource; chunker: Chunker; cutter: Cutter | undefined }): Pick<IdleOptions, 'busy' | 'rest'> {
  let restedBytes = 0
  return {
    busy: () => workers.busy,
    rest() {
      if (process.memoryUsage.rss() < restedBytes + worthBytes) return
      chunker.rest()
      source.rest()
      cutter?.rest()
      workers.rest()
      collectGarbage()
      setTimeout(() => {
        native().trimHeap()
        restedBytes = process.memoryUsage.rss()
      }, trimAfterMs).unref()
    },
  }
}
