import { BorgError, IntegrityError } from '../errors.js'

/** A payload that cannot be decompressed. */
export class DecompressionError extends IntegrityError {
  constructor(detail: string, cause?: unknown) {
    super(`Decompression error: ${detail}`, { msgid: 'DecompressionError', exitCode: 92, cause })
    this.message = `Decompression error: ${detail}`
  }
}

/** An option text that is no compression. Told as a usage error. */
export class CompressionSpecError extends BorgError {
  constructor(text: string) {
    super('CommandError', `invalid CompressionSpec value: '${text}'`, 2)
  }
}
