/** `help [TOPIC]`: commands and their options from the tables, topics in short. */
import { borgVersion } from '../../engine/constants.js'
import { twoWordCommands } from '../args.js'
import type { Command } from '../command.js'
import { commandSpecs, commonOptions, type CommandSpec, type OptionSpec } from '../options.js'
import { print } from '../output/stdout.js'
import { commands, ownCommands } from './all.js'

const summaries: Readonly<Record<string, string>> = {
  'break-lock': 'remove the locks of a repository and its cache, whoever holds them',
  check: 'find damage in a repository and its archives, and repair it',
  commit: 'save what was copied into a mounted drive, now',
  compact: 'free the space of what was deleted',
  config: 'list, print, set or delete values of a repository\'s config',
  create: 'make an archive of files and folders',
  delete: 'delete archives, or a whole repository',
  extract: 'restore files of an archive into the current folder',
  help: 'this help',
  info: 'sizes and facts of a repository or an archive',
  init: 'make a repository',
  'key change-passphrase': 'protect the key by another passphrase',
  'key export': 'write the key out for safe keeping, as text, for paper or as a QR code',
  'key import': 'put an exported key back',
  'key migrate-to-repokey': 'turn a repository of the old passphrase mode into one with a key',
  list: 'archives of a repository, or files of an archive',
  mount: 'show a repository as a folder; copy into its incoming/ to make archives',
  prune: 'delete archives by age: keep so many of the last days, weeks, months …',
  recreate: 'write archives anew: leave out files, compress or cut otherwise',
  rename: 'give an archive another name',
  umount: 'save what was copied in, and unmount',
  upgrade: 'demand an authenticated manifest, or no longer',
  version: 'versions of borgfs and of its parts',
  'with-lock': 'run a program while the repository is locked',
}

const topics: Record<string, string> = {
  patterns: `Patterns choose paths. A pattern may begin with its style:
  fm:  shell glob, * crosses slashes (default of --exclude)      sh:  shell glob, * stops at slashes, **/ is any depth (default of --pattern)
  re:  regular expression, found anywhere                         pp:  path prefix (default of PATHs)      pf:  exactly this path
--exclude PATTERN leaves out what matches and what is below. --pattern '+ PATTERN' includes, '- PATTERN' leaves out but looks inside,
'! PATTERN' leaves out and does not look inside, 'R PATH' names a root. The first match decides.`,
  placeholders: `In names and locations: {hostname} {fqdn} {reverse-fqdn} {now} {utcnow} {user} {pid} {uuid4} {borgversion}.
{now:%Y-%m-%d} takes a strftime format. {{ and }} are braces.`,
  compression: `-C none | lz4 (default) | zstd[,1-22] | zlib[,0-9] | lzma[,0-9] | auto,METHOD[,LEVEL] | obfuscate,SPEC,METHOD[,LEVEL]`,
}

export const help: Command = context => {
  const topic = context.positional('topic')[0]
  if (topic === undefined) print(overview(context.program))
  else if (topics[topic]) print(`${topics[topic]}\n`)
  else if (twoWordCommands.has(topic)) print(`usage: ${context.program} ${topic} COMMAND …\n\n${Object.keys(commandSpecs).filter(name => name.startsWith(`${topic} `)).map(summaryLine).join('\n')}\n`)
  else {
    const spec = ownCommands[topic] ?? commandSpecs[topic]
    if (!spec) throw context.complaint(`No help available on ${topic}.\nCommands: ${Object.keys(commandSpecs).join(', ')}\nTopics: ${Object.keys(topics).join(', ')}`)
    print(commandHelp(context.program, topic, spec))
  }
  return Promise.resolve()
}

function overview(program: string): string {
  // debug is for who looks into a repository by hand: one line for all of it.
  const names = Object.keys(commands).filter(name => !name.startsWith('debug ')).sort()
  const lines = names.map(summaryLine)
  const debug = Object.keys(commands).filter(name => name.startsWith('debug ')).map(name => name.slice('debug '.length))
  lines.push(`  ${'debug …'.padEnd(22)} look into a repository: ${debug.sort().join(', ')}`)
  return `usage: ${program} [options] COMMAND …

borgfs works with the repositories of Borg ${borgVersion} and shows them as a drive.

${lines.join('\n')}

"${program} help COMMAND" tells a command's options; further topics: ${Object.keys(topics).join(', ')}.
`
}

function summaryLine(name: string): string {
  return `  ${name.padEnd(22)} ${summaries[name] ?? ''}`.trimEnd()
}

function commandHelp(program: string, name: string, spec: CommandSpec): string {
  const words = (spec.positionals ?? []).map(({ metavar, name: word, nargs }) => {
    const shown = metavar ?? word.toUpperCase()
    return nargs === '?' ? `[${shown}]` : nargs === '*' ? `[${shown}...]` : nargs === '+' ? `${shown} [${shown}...]` : shown
  })
  const own = (spec.options ?? []).map(optionLine).join('\n')
  return `usage: ${program} ${name} [options] ${words.join(' ')}
${summaries[name] ? `\n${summaries[name]}\n` : ''}${own ? `\noptions:\n${own}\n` : ''}
common options:
${commonOptions.map(optionLine).join('\n')}
`
}

function optionLine({ flags, metavar, default: standard, choices }: OptionSpec): string {
  const value = metavar ? ` ${metavar}` : choices ? ` {${choices.join(',')}}` : ''
  return `  ${flags.join(', ')}${value}${standard === undefined ? '' : `   (default: ${standard})`}`
}
