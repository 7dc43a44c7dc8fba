/** `check --verify-data`: every object is decrypted, decompressed and held against its id, on all cores, in the order of the disk. */
import { idHex, type ChunkId } from '../../ids.js'
import { IntegrityError } from '../../errors.js'
import { damageText } from './finding.js'
import { inLogOrder } from './log-order.js'
import { readObject, scanObjects } from './object-scan.js'
import type { CheckState } from './state.js'

/**
 * Tells of each object that does not open. For a repair, or a plan of one, those that fail once more at the end are given up: what
 * comes next takes them for missing. Otherwise they stay known. `checkCrc`: no repository check has done that just now.
 * Sizes of all chunks are known afterwards.
 */
export async function verifyData(state: CheckState, options: { mode: 'plain' | 'repair' | 'plan'; checkCrc: boolean }): Promise<void> {
  const { repository, listener, signal } = state.context
  state.say('info', 'Starting cryptographic data integrity verification...')
  const total = state.known.count
  const defects: ChunkId[] = []
  let done = 0, errors = 0
  for await (const batch of scanObjects(state.context, inLogOrder(repository.indexInMemory()), { keep: 'none', checkCrc: options.checkCrc, signal })) {
    for (const { id, size, failure } of batch) {
      listener.progress?.('check.verify_data', done, total)
      done++
      if (!failure) {
        state.known.setSize(id, size)
        continue
      }
      errors++
      defects.push(id)
      state.report({
        severity: 'error', about: { kind: 'object', id }, message: `chunk ${idHex(id)}${failure.inEntry ? ':' : ', integrity error:'} ${damageText(failure.error)}`,
        repair: 'the object is deleted if it fails once more',
      })
    }
  }
  listener.progressFinished?.('check.verify_data')
  if (defects.length > 0) {
    if (options.mode !== 'plain') refuseWrongKey(defects.length, done)
    if (options.mode === 'repair') state.say('warning', 'Found defect chunks. They will be deleted now, so affected files can get repaired now and maybe healed later.')
    else {
      state.say('warning', 'Found defect chunks. With --repair, they would get deleted, so affected files could get repaired then and maybe healed later.')
      for (const id of defects) state.say('debug', `chunk ${idHex(id)} is defect.`)
    }
    if (options.mode !== 'plain') await giveUpDefects(state, defects, options.mode)
  }
  state.say(errors > 0 ? 'error' : 'info', `Finished cryptographic data integrity verification, verified ${done} chunks with ${errors} integrity errors.`)
}

/** Memory and disks make mistakes that do not last: only who fails twice goes. */
async function giveUpDefects(state: CheckState, defects: readonly ChunkId[], mode: 'repair' | 'plan'): Promise<void> {
  for (const id of defects) {
    const found = await readObject(state.context, id)
    if ('plain' in found) {
      state.say('warning', `chunk ${idHex(id)} not deleted, did not consistently fail.`)
      state.known.setSize(id, found.plain.length)
    } else {
      state.giveUp(id)
      if (mode === 'repair') state.say('debug', `chunk ${idHex(id)} deleted.`)
    }
  }
}

/** Where nothing at all can be opened it is the key that is wrong, and a repair would delete everything. */
export function refuseWrongKey(failed: number, total: number): void {
  if (total > 1 && failed === total) {
    throw new IntegrityError('not one object of this repository can be opened with its key. The key was probably exchanged: import the right one with "borg key import". Nothing was changed.')
  }
}
