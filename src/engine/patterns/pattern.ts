/** One pattern of a style: fm, sh, re, pp, pf (patterns.md §2). Matched against relative normal paths as escaped text. */
import { CommandError } from '../errors.js'
import { normalPath, withoutLeadingSlashes } from './path-text.js'

export const styles = ['fm', 'sh', 're', 'pp', 'pf'] as const
export type Style = (typeof styles)[number]

export interface Pattern {
  readonly style: Style
  /** As given, without the style prefix. */
  readonly text: string
  /** `path`: normal, relative. */
  matches(path: string): boolean
}

/** `text` may begin with a style and a colon. CommandError for unknown styles and bad expressions. */
export function parsePattern(text: string, standard: Style): Pattern {
  const prefix = /^([\p{L}\p{N}]{2}):/u.exec(text)
  if (!prefix) return makePattern(standard, text)
  const style = styles.find(known => known === prefix[1])
  if (!style) throw new CommandError(`Unknown pattern style: ${prefix[1]}`)
  return makePattern(style, text.slice(3))
}

export function makePattern(style: Style, text: string): Pattern {
  switch (style) {
    case 'fm': {
      const expression = new RegExp(`^(?:${globExpression(withoutLeadingSlashes(directoryForm(text, '*/', '/*')), 'across')})$`, 'su')
      return { style, text, matches: path => expression.test(`${path}/`) }
    }
    case 'sh': {
      const expression = new RegExp(`^(?:${globExpression(withoutLeadingSlashes(directoryForm(text, '**/*/', '/**/*')), 'within')})$`, 'su')
      return { style, text, matches: path => expression.test(`${path}/`) }
    }
    case 're': {
      const expression = pythonExpression(text)
      return { style, text, matches: path => expression.test(path) }
    }
    case 'pp': {
      const prefix = withoutLeadingSlashes(`${normalPath(text).replace(/\/+$/, '')}/`)
      return { style, text, matches: path => `${path}/`.startsWith(prefix) }
    }
    case 'pf': {
      const whole = withoutLeadingSlashes(normalPath(text))
      return { style, text, matches: path => path === whole }
    }
  }
}

/** `dir/` means what is in dir, anything else itself and what is below. */
function directoryForm(text: string, inside: string, below: string): string {
  return text.endsWith('/') ? `${normalPath(text).replace(/\/+$/, '')}/${inside}` : normalPath(text) + below
}

const directories = '(?:[^/]*/)*', anyName = '[^/]*'

/** A shell glob as a regular expression source. `within`: wildcards stop at slashes, and `**` followed by a slash stands for directories. */
export function globExpression(glob: string, wildcards: 'across' | 'within'): string {
  const characters = [...glob]
  let source = ''
  for (let at = 0; at < characters.length; ) {
    const character = characters[at++]!
    if (character === '*') {
      if (wildcards === 'across') {
        while (characters[at] === '*') at++
        source += '.*'
      } else if (at + 2 < characters.length && characters[at] === '*' && characters[at + 1] === '/') {
        // Once is enough, and a row of them would make the expression try every way to share the directories out.
        if (!source.endsWith(directories)) source += directories
        at += 2
      } else if (!source.endsWith(anyName)) source += anyName
    } else if (character === '?') source += wildcards === 'across' ? '.' : '[^/]'
    else if (character === '[') {
      let end = at
      if (characters[end] === '!') end++
      if (characters[end] === ']') end++
      while (end < characters.length && characters[end] !== ']') end++
      if (end >= characters.length) source += '\\['
      else {
        source += characterClass(characters.slice(at, end))
        at = end + 1
      }
    } else source += character.replace(/[\\^$.*+?()[\]{}|/]/, '\\$&')
  }
  return source
}

function characterClass(members: readonly string[]): string {
  const negated = members[0] === '!'
  const body = (negated ? members.slice(1) : members).map((member, index, all) => {
    // A hyphen between two members is a range; everything else is literal.
    if (member === '-' && index > 0 && index < all.length - 1) return '-'
    return member.replace(/[\\^\]\[\-&~|]/, '\\$&')
  }).join('')
  if (body === '') return negated ? '.' : '(?!)'
  // A range that runs backwards matches nothing.
  try {
    new RegExp(`[${body}]`, 'u')
  } catch {
    return '(?!)'
  }
  return `[${negated ? '^' : ''}${body}]`
}

/** A Python regular expression in JavaScript. CommandError if it is none. */
function pythonExpression(text: string): RegExp {
  let source = text
  let flags = ''
  const inline = /^\(\?([aimsux]+)\)/.exec(source)
  if (inline) {
    for (const flag of inline[1]!) if ('ims'.includes(flag)) flags += flag
    source = source.slice(inline[0].length)
  }
  source = source.replace(/\(\?P</g, '(?<').replace(/\(\?P=(\w+)\)/g, '\\k<$1>').replace(/\\A/g, '(?<![\\s\\S])').replace(/\\Z/g, '(?![\\s\\S])')
  try {
    return new RegExp(source, `${flags}u`)
  } catch {
    // Escapes that only Python allows; without the u flag JavaScript does as well.
    try {
      return new RegExp(source, flags)
    } catch (cause) {
      throw new CommandError(`Invalid regular expression in pattern "re:${text}"`, { cause })
    }
  }
}
