/** The commands there are, each loaded when it is called: start-up time is what scripts and prompts feel. */
import type { Command } from '../command.js'
import type { ExtraCommands } from '../args.js'
import { type CommandSpec, commandSpecs, type OptionSpec } from '../options.js'

export const commands: Readonly<Record<string, () => Promise<Command>>> = {
  check: async () => (await import('./check.js')).check,
  create: async () => (await import('./create.js')).create,
  extract: async () => (await import('./extract.js')).extract,
  help: async () => (await import('./help.js')).help,
  info: async () => (await import('./info.js')).info,
  init: async () => (await import('./init.js')).init,
  list: async () => (await import('./list.js')).list,
  mount: async () => (await import('./mount.js')).mount,
  umount: async () => (await import('./umount.js')).umount,
  version: async () => (await import('./version.js')).version,
}

/** Commands and options that Borg does not have. */
export const ownCommands: ExtraCommands = {
  check: withOptions('check', { flags: ['-n', '--dry-run'], kind: 'flag' }),
  version: { positionals: [] },
}

/** A command of Borg with options of our own behind its own. */
function withOptions(command: string, ...options: readonly OptionSpec[]): CommandSpec {
  const spec = commandSpecs[command]!
  return { ...spec, options: [...(spec.options ?? []), ...options] }
}
