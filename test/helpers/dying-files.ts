/** A layer of file calls that dies at the n-th of them, as a process does that is killed there: nothing is done from then on. */
import { type Files, files, replaceFiles } from '../../src/engine/platform/files.js'

export class Killed extends Error {}

/** Calls of the layer that change something. */
const counted = ['open', 'writeAll', 'writeAllLater', 'writeAllOf', 'datasync', 'sync', 'truncate', 'truncateOpen', 'rename', 'link', 'remove', 'makeDirectory', 'removeDirectory'] as const

/** Runs `work`, which is killed before call number `fatal` (from 0). True if it came to its end before that. */
export async function killedAt(fatal: number, work: () => Promise<void>): Promise<boolean> {
  const real = files
  let calls = 0
  const layer = { ...real } as Record<string, unknown>
  for (const name of counted) {
    layer[name] = (...args: unknown[]): unknown => {
      if (calls++ >= fatal) throw new Killed(`killed at ${name}`)
      return (real[name] as (...args: unknown[]) => unknown).apply(layer, args)
    }
  }
  replaceFiles(layer as unknown as Files)
  try {
    await work()
    return calls <= fatal
  } catch (error) {
    if (!(error instanceof Killed)) throw error
    return false
  } finally {
    replaceFiles(real)
  }
}
