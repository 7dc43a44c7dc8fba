/** Pattern options and files in the order of the command line (patterns.md §1, §3). */
import { readFileSync } from 'node:fs'
import { CommandError, errnoOf, messageOf } from '../errors.js'
import { escapedText } from '../text.js'
import { excludeRule, type PatternCommand, type PatternRule } from './matcher.js'
import { parsePattern, type Style, styles } from './pattern.js'

/** One option as met on the command line. */
export type PatternOption =
  | { readonly kind: 'exclude' | 'pattern'; readonly value: string }
  | { readonly kind: 'exclude-from' | 'patterns-from'; readonly value: string }

export interface LoadedPatterns {
  readonly rules: PatternRule[]
  /** R lines. */
  readonly roots: string[]
}

const commands: Record<string, PatternCommand> = { '+': 'include', '-': 'exclude', '!': 'excludeNoRecurse' }

/** CommandError for a bad line or a file that cannot be read. */
export function loadPatterns(options: readonly PatternOption[]): LoadedPatterns {
  const loaded: LoadedPatterns = { rules: [], roots: [] }
  for (const { kind, value } of options) {
    switch (kind) {
      case 'exclude': loaded.rules.push(excludeRule(value)); break
      case 'exclude-from': for (const line of linesOf(value)) loaded.rules.push(excludeRule(line)); break
      case 'pattern': addCommand(value, loaded, 'sh'); break
      case 'patterns-from': {
        let style: Style = 'sh'
        for (const line of linesOf(value)) style = addCommand(line, loaded, style)
      }
    }
  }
  return loaded
}

/** Returns the default style for the lines that follow in the same file. */
function addCommand(line: string, loaded: LoadedPatterns, style: Style): Style {
  const command = line[0] ?? ''
  const rest = line.slice(1).trim()
  if (rest === '') throw new CommandError(`A pattern/command must have a value part: "${line}"`)
  switch (command) {
    case 'R': case 'r':
      loaded.roots.push(rest)
      return style
    case 'P': case 'p': {
      const chosen = styles.find(known => known === rest)
      if (!chosen) throw new CommandError(`Unknown pattern style: ${rest}`)
      return chosen
    }
    case '+': case '-': case '!':
      loaded.rules.push({ command: commands[command]!, pattern: parsePattern(rest, style) })
      return style
  }
  throw new CommandError(`A pattern/command must start with any of: +, -, !, R, P: "${line}"`)
}

function linesOf(path: string): string[] {
  let bytes: Buffer
  try {
    bytes = readFileSync(path)
  } catch (error) {
    throw new CommandError(errnoOf(error) === 'ENOENT' ? `[Errno 2] No such file or directory: '${path}'` : `${path} cannot be read: ${messageOf(error)}`, { cause: error })
  }
  return escapedText(bytes).split('\n').map(line => line.trim()).filter(line => line !== '' && !line.startsWith('#'))
}
