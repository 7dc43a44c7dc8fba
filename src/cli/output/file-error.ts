/** A failed call on a file that was named on the command line, to be told with that name. */
import { errorText } from '../../engine/errno-text.js'
import { BorgError, errnoOf } from '../../engine/errors.js'

/** To be thrown: an error of the host becomes one sentence, anything else stays what it is. */
export function fileError(error: unknown, path: string): unknown {
  if (errnoOf(error) === undefined) return error
  return new BorgError('OSError', `${errorText(error as { code: string; errno: number })}: '${path}'`, 2, { cause: error })
}
