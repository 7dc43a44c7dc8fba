/** The manifest: loaded, or put together from the archives that are found among all objects (archive.md §10, step 3). */
import { isValidArchiveName, Manifest } from '../../archive/manifest.js'
import { unpackWithTam } from '../../crypto/tam.js'
import { IntegrityError } from '../../errors.js'
import { type ChunkId, idHex, manifestId } from '../../ids.js'
import { byteString, bytesOf, shownText } from '../../text.js'
import { damageText } from './finding.js'
import { inLogOrder } from './log-order.js'
import { scanObjects } from './object-scan.js'
import type { CheckState } from './state.js'
import { refuseWrongKey } from './verify-data.js'

/** It is no longer among the known objects afterwards. UnsupportedManifest and unknown mandatory features are thrown. */
export async function checkManifest(state: CheckState): Promise<Manifest> {
  const { repository, objects } = state.context
  const about = { kind: 'manifest' } as const
  const repair = 'a manifest is made of all archives that are found'
  const isThere = state.known.has(manifestId)
  state.known.remove(manifestId)
  if (!isThere) {
    state.report({ severity: 'error', about, message: 'Repository manifest not found!', repair })
    return rebuild(state)
  }
  try {
    return await Manifest.load(repository.getSync(manifestId), objects, repository.location, 'check')
  } catch (error) {
    if (!(error instanceof IntegrityError)) throw error
    state.report({ severity: 'error', about, message: `Repository manifest is corrupted: ${damageText(error)}`, repair })
    return rebuild(state)
  }
}

interface FoundArchive {
  readonly name: string
  readonly id: ChunkId
  readonly time: string
  readonly authentic: boolean
}

async function rebuild(state: CheckState): Promise<Manifest> {
  const { repository, key, listener, signal } = state.context
  state.say('info', 'Rebuilding missing manifest, this might take some time...')
  const ids = function* (): Generator<ChunkId> {
    for (const id of inLogOrder(repository.indexInMemory())) if (state.known.has(id)) yield id
  }
  const archives: FoundArchive[] = []
  let done = 0, failed = 0
  const total = state.known.count
  for await (const batch of scanObjects(state.context, ids(), { keep: 'archives', checkCrc: false, signal })) {
    for (const { id, plain, failure } of batch) {
      listener.progress?.('check.rebuild_manifest', done, total)
      done++
      if (failure && !failure.onlyOnce) {
        failed++
        state.report({ severity: 'error', about: { kind: 'object', id }, message: `Skipping corrupted chunk: ${damageText(failure.error)}` })
      } else if (plain) {
        const archive = archiveOf(state, id, plain)
        if (archive) archives.push(archive)
      }
    }
  }
  listener.progressFinished?.('check.rebuild_manifest')
  refuseWrongKey(failed, done)
  const manifest = Manifest.empty(key)
  // A file that looks like an archive must not take the name of a real one.
  for (const { name, id, time } of archives.sort((a, b) => Number(b.authentic) - Number(a.authentic))) {
    state.say('info', `Found archive ${shownText(bytesOf(name))}`)
    let unique = name
    for (let number = 1; manifest.archives.has(unique); number++) unique = `${name}.${number}`
    if (unique !== name) state.say('warning', `Duplicate archive name ${shownText(bytesOf(name))}, storing as ${shownText(bytesOf(unique))}`)
    manifest.archives.set(unique, { name: unique, id, time })
  }
  state.say('info', 'Manifest rebuild complete.')
  return manifest
}

/** Undefined for what only looks like the metadata of an archive. */
function archiveOf(state: CheckState, id: ChunkId, plain: Buffer): FoundArchive | undefined {
  try {
    const { map, tam } = unpackWithTam(plain, state.context.key, 'archive')
    const [name, time] = [map.get('name'), map.get('time')]
    if (!['version', 'items', 'cmdline'].every(field => map.has(field)) || !Buffer.isBuffer(name) || !Buffer.isBuffer(time)) return undefined
    const authentic = tam === 'valid' || (tam === 'absent' && !state.context.key.tamRequired)
    return { name: isValidArchiveName(name) ? byteString(name) : `archive-${idHex(id)}`, id: id, time: time.toString('latin1'), authentic }
  } catch (error) {
    if (error instanceof IntegrityError) return undefined
    throw error
  }
}
