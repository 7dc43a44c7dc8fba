/** The commands there are, each loaded when it is called: start-up time is what scripts and prompts feel. */
import type { Command } from '../command.js'
import type { ExtraCommands } from '../args.js'

export const commands: Readonly<Record<string, () => Promise<Command>>> = {
  commit: async () => (await import('./commit.js')).commit,
  create: async () => (await import('./create.js')).create,
  delete: async () => (await import('./delete.js')).deleteCommand,
  extract: async () => (await import('./extract.js')).extract,
  help: async () => (await import('./help.js')).help,
  info: async () => (await import('./info.js')).info,
  init: async () => (await import('./init.js')).init,
  list: async () => (await import('./list.js')).list,
  mount: async () => (await import('./mount.js')).mount,
  prune: async () => (await import('./prune.js')).prune,
  rename: async () => (await import('./rename.js')).rename,
  umount: async () => (await import('./umount.js')).umount,
  version: async () => (await import('./version.js')).version,
}

/** Commands and options that Borg does not have. */
export const ownCommands: ExtraCommands = {
  commit: { positionals: [{ name: 'mountpoint', nargs: 1, metavar: 'MOUNTPOINT' }, { name: 'name', nargs: '?', metavar: 'NAME' }] },
  version: { positionals: [] },
}
