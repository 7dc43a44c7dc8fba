/** `{hostname}`, `{now:%Y}` and the like in locations, names and comments (placeholders.md). */
import { hostname, userInfo } from 'node:os'
import { randomUUID } from 'node:crypto'
import { borgVersion } from './constants.js'
import { BorgError, CommandError } from './errors.js'
import { native } from './native.js'
import { civilTime, strftime } from './strftime.js'

export class InvalidPlaceholder extends BorgError {
  constructor(placeholder: string, text: string) {
    super('InvalidPlaceholder', `Invalid placeholder "${placeholder}" in string: ${text}`, 6)
  }
}

export interface PlaceholderContext {
  /** Instead of the present moment, microseconds since 1970: --timestamp. */
  readonly nowMicros?: number
  /** Further keys, such as `name` of the drive's archives. */
  readonly extra?: Readonly<Record<string, string>>
}

/** No path and no line is longer. */
const maxWidth = 1 << 16

const defaultTimeFormat = '%Y-%m-%dT%H:%M:%S'

/** InvalidPlaceholder, CommandError for unbalanced braces. The time is taken once per text. */
export function expandPlaceholders(text: string, context: PlaceholderContext = {}): string {
  if (!text.includes('{') && !text.includes('}')) return text
  const now = context.nowMicros ?? Math.floor((performance.timeOrigin + performance.now()) * 1000)
  let expanded = ''
  for (let at = 0; at < text.length; at++) {
    const character = text[at]!
    if (character === '{' && text[at + 1] === '{') expanded += text[at++]
    else if (character === '}' && text[at + 1] === '}') expanded += text[at++]
    else if (character === '}') throw new CommandError("Single '}' encountered in format string")
    else if (character === '{') {
      const end = text.indexOf('}', at)
      if (end < 0) throw new CommandError("Single '{' encountered in format string")
      expanded += value(text.slice(at + 1, end), text, now, context)
      at = end
    } else expanded += character
  }
  return expanded
}

function value(inside: string, text: string, now: number, context: PlaceholderContext): string {
  const colon = inside.indexOf(':')
  const key = colon < 0 ? inside : inside.slice(0, colon)
  const spec = colon < 0 ? '' : inside.slice(colon + 1)
  if (key === '') throw new BorgError('PlaceholderError', `Formatting Error: "${text}".format(): a placeholder without a name`, 5)
  if (key === 'now') return strftime(spec || defaultTimeFormat, civilTime(now, 'local'))
  if (key === 'utcnow') return strftime(spec || defaultTimeFormat, civilTime(now, 'utc'))
  const plain = context.extra?.[key] ?? fixed(key)
  if (plain === undefined) throw new InvalidPlaceholder(key, text)
  return padded(plain, spec)
}

function fixed(key: string): string | undefined {
  switch (key) {
    case 'hostname': return hostname().split('.')[0]!
    case 'fqdn': return native().canonicalHostName()
    case 'reverse-fqdn': return native().canonicalHostName().split('.').reverse().join('.')
    case 'user': return userInfo().username
    case 'pid': return String(process.pid)
    case 'uuid4': return randomUUID()
    case 'borgversion': return borgVersion
    case 'borgmajor': return '1'
    case 'borgminor': return '1.2'
    case 'borgpatch': return borgVersion
    case 'unixtime': return String(Math.floor(Date.now() / 1000))
  }
  return undefined
}

interface TextSpec {
  readonly fill: string
  readonly align: string
  readonly width: number
  readonly precision: number | undefined
}

/** Specs taken apart; undefined for one that is none. A format has a handful, which are asked for in each row. */
const specs = new Map<string, TextSpec | undefined>()

function specOf(spec: string): TextSpec | undefined {
  if (specs.has(spec)) return specs.get(spec)
  const match = /^(?:(.)?([<>^=]))?(0)?(\d*)(?:\.(\d+))?[sd]?$/u.exec(spec)
  let parsed: TextSpec | undefined
  if (match) {
    const [, fillCharacter, align, zero, width, precision] = match
    parsed = { fill: fillCharacter ?? (zero ? '0' : ' '), align: align ?? (zero ? '>' : '<'), width: Number(width || 0), precision: precision === undefined ? undefined : Number(precision) }
  }
  specs.set(spec, parsed)
  return parsed
}

/** Python's string spec: [[fill]align][0][width][.precision]. */
export function padded(text: string, spec: string): string {
  const parsed = specOf(spec)
  return parsed ? paddedBy(text, parsed) : text
}

/** padded for many texts. */
export function padder(spec: string): (text: string) => string {
  const parsed = specOf(spec)
  return parsed ? text => paddedBy(text, parsed) : text => text
}

function paddedBy(text: string, { fill, align, width, precision }: TextSpec): string {
  const cut = precision === undefined ? text : [...text].slice(0, precision).join('')
  if (width > maxWidth) throw new CommandError(`A width of ${width} is too large: at most ${maxWidth} are allowed.`)
  const missing = width - (surrogate.test(cut) ? [...cut].length : cut.length)
  if (missing <= 0) return cut
  if (align === '<') return cut + fill.repeat(missing)
  if (align === '^') return fill.repeat(Math.floor(missing / 2)) + cut + fill.repeat(Math.ceil(missing / 2))
  return fill.repeat(missing) + cut
}

const surrogate = /[\ud800-\udfff]/
