/** Format strings of `list` in Python's syntax (output.md §1): parsed once, filled per row. */
import { CommandError } from '../../engine/errors.js'
import { padded, padder } from '../../engine/placeholders.js'
import { civilTime, strftime } from '../../engine/strftime.js'

/** A value of a row: text, a number, or a moment in microseconds whose spec is a strftime text. */
export type FormatValue = string | number | { readonly micros: number }

interface Field {
  readonly key: string
  readonly spec: string
}

const fixed: Readonly<Record<string, string>> = { NEWLINE: '\n', NL: '\n', NUL: '\0', SPACE: ' ', TAB: '\t', CR: '\r', LF: '\n' }
const timeFormat = '%a, %Y-%m-%d %H:%M:%S'

export class RowFormat {
  readonly #parts: readonly (string | Field)[]
  /** Keys that the format asks for. */
  readonly keys: ReadonlySet<string>

  /** CommandError for unbalanced braces. */
  constructor(text: string) {
    const parts: (string | Field)[] = []
    let literal = ''
    for (let at = 0; at < text.length; at++) {
      const character = text[at]!
      if ((character === '{' || character === '}') && text[at + 1] === character) literal += text[at++]
      else if (character === '}') throw new CommandError("Single '}' encountered in format string")
      else if (character === '{') {
        const end = text.indexOf('}', at)
        if (end < 0) throw new CommandError("expected '}' before end of string")
        const field = /^([^:!]*)(?:![rsa])?(?::(.*))?$/s.exec(text.slice(at + 1, end))
        if (!field) throw new CommandError(`Unknown conversion in the format's {${text.slice(at + 1, end)}}: there are !r, !s and !a.`)
        const [, key, spec] = field
        const constant = fixed[key!]
        if (constant !== undefined) literal += formatted(constant, spec ?? '')
        else {
          if (literal) parts.push(literal)
          literal = ''
          parts.push({ key: key!, spec: spec ?? '' })
        }
        at = end
      } else literal += character
    }
    if (literal) parts.push(literal)
    this.#parts = parts
    this.keys = new Set(parts.flatMap(part => (typeof part === 'string' ? [] : [part.key])))
  }

  /** CommandError for a key that `known` has not. */
  check(known: ReadonlySet<string>): void {
    for (const key of this.keys) if (!known.has(key)) throw new CommandError(`Unknown format key '${key}'. "borg help" tells the keys.`)
  }

  fill(value: (key: string) => FormatValue): string {
    let text = ''
    for (const part of this.#parts) {
      if (typeof part === 'string') text += part
      else {
        const found = value(part.key)
        text += part.spec === '' && typeof found === 'string' ? found : formatted(found, part.spec)
      }
    }
    return text
  }

  /** What fills rows in: for thousands of them, as what is to be done for each key is then found only once. */
  rows<R>(valueOf: (key: string) => (row: R) => FormatValue): (row: R) => string {
    const parts = this.#parts.map(part => {
      if (typeof part === 'string') return part
      const value = valueOf(part.key), { spec } = part
      const pad = spec === '' ? undefined : padder(spec)
      return (row: R): string => {
        const found = value(row)
        return typeof found !== 'string' ? formatted(found, spec) : pad ? pad(found) : found
      }
    })
    return row => {
      let text = ''
      for (const part of parts) text += typeof part === 'string' ? part : part(row)
      return text
    }
  }
}

function formatted(value: FormatValue, spec: string): string {
  if (typeof value === 'object') return strftime(spec || timeFormat, civilTime(value.micros, 'local'))
  if (typeof value === 'string') return spec ? padded(value, spec) : value
  if (!spec) return String(value)
  const grouped = spec.includes(',')
  const text = grouped ? value.toLocaleString('en-US') : String(value)
  const plain = spec.replace(',', '').replace(/[dn]$/, '')
  // Numbers are right-aligned unless told otherwise.
  return padded(text, /[<>^=]/.test(plain) ? plain : /^0/.test(plain) ? plain : `>${plain}`)
}
