/** The ordered list of include and exclude patterns, and the include PATHs after it (patterns.md §1, §3, §4). */
import { escapedText } from '../text.js'
import { globExpression, parsePattern, type Pattern } from './pattern.js'
import { normalPath, withoutLeadingSlashes } from './path-text.js'

/** `+`, `-`, `!`. */
export type PatternCommand = 'include' | 'exclude' | 'excludeNoRecurse'

export interface PatternRule {
  readonly command: PatternCommand
  readonly pattern: Pattern
}

export interface Decision {
  readonly included: boolean
  /** Whether to look below an excluded directory. */
  readonly recurse: boolean
}

const decisions: Record<PatternCommand, Decision> = {
  include: { included: true, recurse: true },
  exclude: { included: false, recurse: true },
  excludeNoRecurse: { included: false, recurse: false },
}
const unmatchedPath: Decision = { included: false, recurse: true }

export class Matcher {
  /** `pf:` patterns, found by a look-up before all others. */
  readonly #whole = new Map<string, PatternCommand>()
  readonly #rules: PatternRule[] = []
  readonly #includes: { pattern: Pattern; matched: boolean }[] = []

  /** Asked when neither a rule nor a PATH says anything. */
  readonly #last: readonly PatternRule[]
  readonly #given: { readonly rules: readonly PatternRule[]; readonly paths: readonly string[] }

  /** `paths`: PATHs of commands other than create, whose default style is pp. */
  constructor(rules: readonly PatternRule[], paths: readonly string[] = [], last: readonly PatternRule[] = []) {
    this.#last = last
    this.#given = { rules, paths }
    for (const rule of rules) {
      if (rule.pattern.style === 'pf') this.#whole.set(withoutLeadingSlashes(normalPath(rule.pattern.text)), rule.command)
      else this.#rules.push(rule)
    }
    for (const given of paths) this.#includes.push({ pattern: parsePattern(given, 'pp'), matched: false })
  }

  /** True if nothing is ever excluded. */
  get includesEverything(): boolean {
    return this.#whole.size === 0 && this.#rules.length === 0 && this.#includes.length === 0 && this.#last.length === 0
  }

  /** The same, and `rules` for what it says nothing of. */
  followedBy(rules: readonly PatternRule[]): Matcher {
    return new Matcher(this.#given.rules, this.#given.paths, rules)
  }

  /** `path` as escaped text, any form. */
  decide(path: string): Decision {
    if (this.includesEverything) return decisions.include
    const normal = withoutLeadingSlashes(normalPath(path))
    const whole = this.#whole.get(normal)
    if (whole) return decisions[whole]
    for (const { pattern, command } of this.#rules) if (pattern.matches(normal)) return decisions[command]
    for (const include of this.#includes) {
      if (include.pattern.matches(normal)) {
        include.matched = true
        return decisions.include
      }
    }
    for (const { pattern, command } of this.#last) if (pattern.matches(normal)) return decisions[command]
    return this.#includes.length === 0 ? decisions.include : unmatchedPath
  }

  /** `decide` of a path as it is stored, which is made text of only if it matters. */
  decideOf(path: Uint8Array): Decision {
    return this.includesEverything ? decisions.include : this.decide(escapedText(path))
  }

  /** Whether a stored path is chosen. */
  includes(path: Uint8Array): boolean {
    return this.decideOf(path).included
  }

  /** PATHs that nothing matched, without their style, as Borg names them. */
  unmatched(): string[] {
    return this.#includes.filter(({ matched }) => !matched).map(({ pattern }) => pattern.text)
  }
}

/** `-e PATTERN`: as `!`, default style fm. */
export function excludeRule(text: string): PatternRule {
  return { command: 'excludeNoRecurse', pattern: parsePattern(text, 'fm') }
}

/** The archive name filter of -a: a whole-name glob without styles (patterns.md §7). */
export function archiveNameMatcher(glob: string): (name: string) => boolean {
  const expression = new RegExp(`^(?:${globExpression(glob, 'within')})$`, 'su')
  return name => expression.test(name)
}

