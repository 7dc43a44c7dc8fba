import type { Log } from '../../../engine/log.js'
import type { FsCore } from '../../core.js'
import type { MountOptions, Session } from '../transport.js'
export async function mountFuseNative(_core: FsCore, _options: MountOptions, _log: Log): Promise<Session> {
  throw new Error('being written')
}
