/**
 * Names are bytes. Where they must be shown or typed they are UTF-8; bytes that are not become `?` on output (Borg's
 * rule, output.md §11). Inside the program a name that has to be a Map key or compared is a "byte string": one
 * character per byte (latin1), which is exact for every name.
 */

/** Bytes for people: UTF-8, with one `?` for each byte that is not. */
export function shownText(bytes: Uint8Array): string {
  const buffer = asBuffer(bytes)
  const text = buffer.toString('utf8')
  if (!text.includes('\ufffd') || Buffer.from(text, 'utf8').equals(buffer)) return text
  let shown = ''
  for (let at = 0; at < buffer.length; ) {
    const length = sequenceLength(buffer, at)
    shown += length === 0 ? '?' : buffer.toString('utf8', at, at + length)
    at += length || 1
  }
  return shown
}

/** Length of the well-formed UTF-8 sequence at `at`, 0 if there is none. */
function sequenceLength(buffer: Buffer, at: number): number {
  const lead = buffer[at]!
  const length = lead < 0x80 ? 1 : lead >= 0xc2 && lead < 0xe0 ? 2 : lead >= 0xe0 && lead < 0xf0 ? 3 : lead >= 0xf0 && lead < 0xf5 ? 4 : 0
  if (length === 0 || at + length > buffer.length) return 0
  if (length === 1) return 1
  const piece = buffer.subarray(at, at + length)
  return Buffer.from(piece.toString('utf8'), 'utf8').equals(piece) ? length : 0
}

/** Bytes as an exact Map key: one character per byte. */
export function byteString(bytes: Uint8Array): string {
  return asBuffer(bytes).toString('latin1')
}

/** The inverse of byteString. */
export function bytesOf(byteString: string): Buffer {
  return Buffer.from(byteString, 'latin1')
}

const ascii = /^[\x00-\x7f]*$/

/** shownText of a byte string. */
export function shownByteString(byteString: string): string {
  return ascii.test(byteString) ? byteString : shownText(bytesOf(byteString))
}

/** A Buffer over the same memory. */
export function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length)
}

/**
 * Bytes as text for matching and editing: UTF-8, with each byte that is not as the lone surrogate U+DC80 + (byte - 0x80), as
 * Python's surrogateescape does. escapedBytes undoes it exactly.
 */
export function escapedText(bytes: Uint8Array): string {
  const buffer = asBuffer(bytes)
  const text = buffer.toString('utf8')
  if (!text.includes('\ufffd') || Buffer.from(text, 'utf8').equals(buffer)) return text
  let escaped = ''
  for (let at = 0; at < buffer.length; ) {
    const length = sequenceLength(buffer, at)
    escaped += length === 0 ? String.fromCharCode(0xdc00 + buffer[at]!) : buffer.toString('utf8', at, at + length)
    at += length || 1
  }
  return escaped
}

export function escapedBytes(text: string): Buffer {
  if (!/[\udc80-\udcff]/.test(text)) return Buffer.from(text, 'utf8')
  const parts: Buffer[] = []
  for (const character of text) {
    const code = character.codePointAt(0)!
    parts.push(code >= 0xdc80 && code <= 0xdcff ? Buffer.from([code - 0xdc00]) : Buffer.from(character, 'utf8'))
  }
  return Buffer.concat(parts)
}
