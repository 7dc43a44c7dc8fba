/** A disk that fails within this process, by way of the layer of file calls (platform/files.ts). */
import { constants } from 'node:os'
import { type Files, files, replaceFiles } from '../../src/engine/platform/files.js'

/** As Node's fs throws it. */
export function hostError(code: 'EIO' | 'ENOSPC'): Error {
  return Object.assign(new Error(code), { code, errno: -constants.errno[code] })
}

/** What is written with writeAll finds no room any more, until the layer that this returns is put back (replaceFiles). */
export function fillDisk(): Files {
  return replaceFiles({ ...files, writeAll: () => { throw hostError('ENOSPC') } })
}
