/** An answer that goes to a file of the person's choice, or to stdout for `-`. */
import { closeSync, fstatSync, openSync, realpathSync, writeFileSync } from 'node:fs'
import { BorgError, CommandError, errnoOf } from '../../engine/errors.js'
import { saveFile } from '../../engine/platform/save-file.js'
import { errorText } from './errno-text.js'
import { print } from './stdout.js'

/** A regular file is replaced in one step, anything else (a pipe, a device) written to. CommandError for a directory, as Borg says it. */
export function writeAnswer(path: string, content: Buffer | string): void {
  if (path === '-') return print(content)
  try {
    const existing = realPath(path)
    if (existing === undefined || isRegular(existing)) saveFile(existing ?? path, Buffer.from(content))
    else writeFileSync(existing, content)
  } catch (error) {
    if (errnoOf(error) === 'EISDIR') throw new CommandError(`'${path}' must be a file, not a directory`, { cause: error })
    if (errnoOf(error) === undefined) throw error
    throw new BorgError('OSError', `${errorText(error as { code: string; errno: number })}: '${path}'`, 2, { cause: error })
  }
}

function realPath(path: string): string | undefined {
  try {
    return realpathSync(path)
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return undefined
    throw error
  }
}

/** EISDIR for a directory, EACCES for what may not be written, before anything is made beside it. */
function isRegular(path: string): boolean {
  const fd = openSync(path, 'a')
  try {
    return fstatSync(fd).isFile()
  } finally {
    closeSync(fd)
  }
}
