/** What a byte worker was told once: key, codec, index. */
import type { Codec } from '../codec/codec.js'
import { parseCompression } from '../codec/spec.js'
import type { Key } from '../crypto/key.js'
import { keyFromMaterial } from '../crypto/keys.js'
import { SharedTableReader } from '../hashindex/hash-table.js'
import type { WorkerSetup } from './jobs.js'

export interface WorkerState {
  key: Key | undefined
  codec: Codec | undefined
  index: SharedTableReader | undefined
}

export function setUp(state: WorkerState, setup: WorkerSetup): void {
  if (setup.material) state.key = keyFromMaterial(setup.material)
  if (setup.codec) state.codec = parseCompression(setup.codec)
  if (!setup.index) return
  state.index?.close()
  state.index = new SharedTableReader(setup.index)
}
