/** Stored maps as JSON for people who debug (commands.md §10): Borg's convention, keys in the order stored. */
import type { MsgValue } from '../../engine/msgpack.js'
import { bytesOf } from '../../engine/text.js'
import { scalarJson } from './log.js'

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })
const hexMark = '\x7f'

/** UTF-8 as it is; anything else, and what could be mistaken for it, as DEL and hex. */
function dumpedText(bytes: Uint8Array): string {
  if (bytes[0] !== 0x7f) {
    try {
      return utf8.decode(bytes)
    } catch {
      // no text
    }
  }
  return hexMark + Buffer.from(bytes).toString('hex')
}

/** Indented by 4; `indent` stands before all lines but the first. */
export function dumpJson(value: MsgValue | ReadonlyMap<number | string, MsgValue>, indent = ''): string {
  const inner = `${indent}    `
  if (Buffer.isBuffer(value)) return scalarJson(dumpedText(value))
  if (typeof value === 'bigint') return String(value)
  if (Array.isArray(value)) return value.length === 0 ? '[]' : `[\n${value.map(entry => inner + dumpJson(entry, inner)).join(',\n')}\n${indent}]`
  if (value instanceof Map) {
    if (value.size === 0) return '{}'
    const lines = [...(value as ReadonlyMap<number | string, MsgValue>)].map(([key, entry]) => `${inner}${scalarJson(typeof key === 'number' ? String(key) : dumpedText(bytesOf(key)))}: ${dumpJson(entry, inner)}`)
    return `{\n${lines.join(',\n')}\n${indent}}`
  }
  return scalarJson(value)
}
