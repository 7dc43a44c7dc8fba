/**
 * Command lines by the tables of options.ts: abbreviations, options before, between and after positionals, repeated ones,
 * mutual exclusions, with Borg's messages (commands.md §1). Words are brought into one form here, minimist does the rest.
 */
import minimist from 'minimist'
import { type CommandSpec, commandSpecs, commonOptions, type OptionSpec } from './options.js'

/** What is wrong with a command line: told with the usage text, plain even under --log-json. */
export class UsageError extends Error {
  /** Words before the message: `borg create`. */
  readonly command: string

  constructor(command: string, message: string) {
    super(message)
    this.command = command
  }
}

/** One option of the pattern kind, in the order of the command line. */
export interface OrderedOption {
  readonly flag: string
  readonly value: string
  /** No operand of the command stands before it. */
  readonly beforeOperands: boolean
}

export interface ParsedArgs {
  /** Two words for `key export` and the like. */
  readonly command: string
  readonly spec: CommandSpec
  /** By long flag without dashes (or short one, where there is no long): see the typed getters. */
  readonly values: Readonly<Record<string, unknown>>
  readonly ordered: readonly OrderedOption[]
  readonly positionals: Readonly<Record<string, readonly string[]>>
}

const orderedFlags = new Set(['exclude', 'exclude-from', 'pattern', 'patterns-from'])
export const twoWordCommands: ReadonlySet<string> = new Set(['benchmark', 'key', 'debug'])

/** Long flag without dashes, or the short one. */
function optionName(spec: OptionSpec): string {
  return (spec.flags.find(flag => flag.startsWith('--')) ?? spec.flags[0]!).replace(/^-+/, '')
}

/** Further options that a command of ours has beside Borg's. */
export interface ExtraCommands {
  readonly [command: string]: CommandSpec
}

/** UsageError. `program`: name as called, for messages. */
export function parseArgs(words: readonly string[], program: string, extra: ExtraCommands = {}): ParsedArgs {
  const specs = { ...commandSpecs, ...extra }
  let command: string | undefined
  let spec: CommandSpec = {}
  let options: readonly OptionSpec[] = commonOptions
  const canonical: string[] = []
  const ordered: OrderedOption[] = []
  const given = new Map<string, number>()
  const rest: string[] = []
  let onlyPositionals = false

  const where = (): string => (command === undefined ? program : `${program} ${command}`)
  const take = (option: OptionSpec, inline: string | undefined, next: () => string | undefined): void => {
    const name = optionName(option)
    const count = (given.get(name) ?? 0) + 1
    given.set(name, count)
    if (option.once && count > 1) throw new UsageError(where(), `argument ${option.flags.join('/')}: There can be only one.`)
    if (option.kind === 'flag' || option.kind === 'count') {
      if (inline !== undefined) throw new UsageError(where(), `argument ${option.flags.join('/')}: ignored explicit argument '${inline}'`)
      // In this form minimist does not take `--no-…` for a negation.
      canonical.push(`--${option.means ?? name}=true`)
      return
    }
    let value = inline ?? (option.kind === 'optional-value' ? optionalValue(option, next) : next())
    if (value === undefined && option.kind === 'optional-value') value = option.without_value ?? ''
    if (value === undefined) throw new UsageError(where(), `argument ${option.flags.join('/')}: expected one argument`)
    if (option.choices && !option.choices.includes(value)) {
      throw new UsageError(where(), `argument ${option.flags.join('/')}: invalid choice: '${value}' (choose from ${option.choices.map(choice => `'${choice}'`).join(', ')})`)
    }
    checkNumber(option, value, where())
    if (orderedFlags.has(name)) ordered.push({ flag: name, value, beforeOperands: rest.length === 0 })
    else canonical.push(`--${name}=${value}`)
  }

  for (let at = 0; at < words.length; at++) {
    const word = words[at]!
    const next = (): string | undefined => {
      const following = words[at + 1]
      if (following === undefined || looksLikeOption(following, options)) return undefined
      at++
      return following
    }
    if (onlyPositionals || word === '-' || !word.startsWith('-') || word.startsWith('- ')) {
      if (command === undefined) {
        command = twoWordCommands.has(word) ? `${word} ${words[++at] ?? ''}`.trim() : word
        const found = specs[command]
        if (!found) {
          const choices = [...new Set(Object.keys(specs).map(name => name.split(' ')[0]!))].sort()
          throw new UsageError(program, `argument <command>: invalid choice: '${command}' (choose from ${choices.map(choice => `'${choice}'`).join(', ')})`)
        }
        spec = found
        options = [...(spec.options ?? []), ...commonOptions]
        // What follows the repository is somebody else's command line.
        if (spec.positionals?.some(positional => positional.nargs === '...')) {
          const end = endOfOwnWords(words, at + 1, options)
          rest.push(...words.slice(words[end] === '--' ? end + 1 : end))
          words = words.slice(0, end)
        }
      } else rest.push(word)
    } else if (word === '--') onlyPositionals = true
    else if (word.startsWith('--')) {
      const equals = word.indexOf('=')
      const flag = equals < 0 ? word : word.slice(0, equals)
      take(findLong(flag, options, where()), equals < 0 ? undefined : word.slice(equals + 1), next)
    } else {
      for (let letter = 1; letter < word.length; letter++) {
        const flag = `-${word[letter]}`
        const option = options.find(({ flags }) => flags.includes(flag))
        if (!option) throw new UsageError(program, `unrecognized arguments: ${word}`)
        if (option.kind === 'flag' || option.kind === 'count') take(option, undefined, next)
        else {
          const attached = word.slice(letter + 1).replace(/^=/, '')
          take(option, attached === '' ? undefined : attached, next)
          break
        }
      }
    }
  }
  for (const group of spec.exclusive ?? []) {
    const used = group.filter(flag => given.has(flag.replace(/^-+/, '')))
    const shown = (flag: string): string => options.find(({ flags }) => flags.includes(flag))?.flags.join('/') ?? flag
    if (used.length > 1) throw new UsageError(where(), `argument ${shown(used[1]!)}: not allowed with argument ${shown(used[0]!)}`)
  }
  for (const option of options) {
    if (option.required && !given.has(optionName(option))) throw new UsageError(where(), `the following arguments are required: ${option.flags.join('/')}`)
  }
  return { command: command ?? '', spec, values: collect(canonical, options), ordered, positionals: distribute(spec, rest, program, where()) }
}

/** A word with a space in it is text, unless it begins with an option that there is (argparse). */
function looksLikeOption(word: string, options: readonly OptionSpec[]): boolean {
  if (!word.startsWith('-') || word.length === 1 || /^-[\d ]/.test(word)) return false
  if (!word.includes(' ')) return true
  const name = word.startsWith('--') ? word.replace(/=.*$/s, '') : word.slice(0, 2)
  return options.some(({ flags }) => flags.some(flag => (word.startsWith('--') ? flag.startsWith(name) : flag === name)))
}

/** The first word that is neither an option nor the value of one that every command has: the command, if there is one. */
export function firstOperand(words: readonly string[]): string | undefined {
  const at = endOfOwnWords(words, 0, commonOptions)
  return words[at] === '--' ? words[at + 1] : words[at]
}

/** The command as it is called, of one word or two: a second one that is missing is what there is to choose from. */
export function commandName(words: readonly string[]): string | undefined {
  const first = firstOperand(words)
  if (first === undefined || !twoWordCommands.has(first)) return first
  const second = words.slice(words.indexOf(first) + 1).find(word => !word.startsWith('-'))
  return second === undefined ? first : `${first} ${second}`
}

/** Index of the repository of `with-lock [options] REPO COMMAND …`; what follows is not ours to parse. */
function endOfOwnWords(words: readonly string[], from: number, options: readonly OptionSpec[]): number {
  let at = from
  while (at < words.length && words[at]!.startsWith('-') && words[at] !== '--') {
    const word = words[at++]!
    const known = options.find(({ flags }) => flags.includes(word)) ?? options.find(({ flags }) => word.startsWith('--') && flags.some(flag => flag.startsWith(word)))
    if (known && known.kind !== 'flag' && known.kind !== 'count') at++
  }
  return at
}

function findLong(flag: string, options: readonly OptionSpec[], where: string): OptionSpec {
  const exact = options.find(({ flags }) => flags.includes(flag))
  if (exact) return exact
  const found = options.flatMap(option => option.flags.filter(known => known.startsWith(flag)).map(known => ({ option, known })))
  const distinct = [...new Set(found.map(({ option }) => option))]
  if (distinct.length === 1) return distinct[0]!
  if (distinct.length > 1) throw new UsageError(where, `ambiguous option: ${flag} could match ${[...new Set(found.map(({ known }) => known))].join(', ')}`)
  throw new UsageError(where.split(' ')[0]!, `unrecognized arguments: ${flag}`)
}

function optionalValue(option: OptionSpec, next: () => string | undefined): string | undefined {
  return option.choices ? next() : undefined
}

function checkNumber(option: OptionSpec, value: string, where: string): void {
  const flags = option.flags.join('/')
  if (option.type === 'int' && !/^[+-]?\d+$/.test(value)) throw new UsageError(where, `argument ${flags}: invalid int value: '${value}'`)
  if (option.type === 'positive-int' && !/^[+-]?\d+$/.test(value)) throw new UsageError(where, `argument ${flags}: invalid positive_int_validator value: '${value}'`)
  if (option.type === 'positive-int' && !/^\+?0*[1-9]\d*$/.test(value)) throw new UsageError(where, `argument ${flags}: A positive integer is required: ${value}`)
  if (option.type === 'octal' && !/^(?:0o)?[0-7]+$/.test(value)) throw new UsageError(where, `argument ${flags}: invalid <lambda> value: '${value}'`)
}

function collect(canonical: readonly string[], options: readonly OptionSpec[]): Record<string, unknown> {
  const withValue = options.filter(({ kind }) => kind !== 'flag' && kind !== 'count').map(optionName)
  const flags = options.filter(({ kind }) => kind === 'flag').map(optionName)
  const parsed = minimist([...canonical], { string: withValue, boolean: flags })
  const values: Record<string, unknown> = {}
  for (const option of options) {
    const name = optionName(option)
    const value: unknown = parsed[name]
    if (option.kind === 'count') values[name] = Array.isArray(value) ? value.length : value ? 1 : 0
    else if (option.kind === 'append') values[name] = value === undefined ? [] : Array.isArray(value) ? value : [value]
    else if (option.kind === 'flag') values[name] = value === true
    // The last of several wins.
    else values[name] = (Array.isArray(value) ? value.at(-1) : value) ?? option.default
  }
  return values
}

function distribute(spec: CommandSpec, words: readonly string[], program: string, where: string): Record<string, readonly string[]> {
  const positionals = spec.positionals ?? []
  const values: Record<string, readonly string[]> = {}
  let at = 0
  for (const [index, { name, nargs }] of positionals.entries()) {
    const neededLater = positionals.slice(index + 1).filter(later => later.nargs === 1 || later.nargs === '+').length
    const available = words.length - at - neededLater
    const count = nargs === 1 ? Math.min(1, words.length - at) : nargs === '?' ? Math.min(1, Math.max(0, available)) : Math.max(0, available)
    values[name] = words.slice(at, at + count)
    at += count
  }
  const missing = positionals.findIndex(({ name, nargs }) => (nargs === 1 || nargs === '+') && values[name]!.length === 0)
  if (missing >= 0) {
    // Behind what is missing Python's parser takes nothing more, not even nothing at all.
    const unseen = positionals.slice(missing).filter(({ nargs }) => nargs !== '?')
    throw new UsageError(where, `the following arguments are required: ${unseen.map(({ metavar, name }) => metavar ?? name).join(', ')}`)
  }
  if (at < words.length) throw new UsageError(program, `unrecognized arguments: ${words.slice(at).join(' ')}`)
  return values
}
