/** The commands there are, each loaded when it is called: start-up time is what scripts and prompts feel. */
import type { Command } from '../command.js'
import type { ExtraCommands } from '../args.js'
import { type CommandSpec, commandSpecs, type OptionSpec } from '../options.js'

export const commands: Readonly<Record<string, () => Promise<Command>>> = {
  'benchmark crud': async () => (await import('./benchmark-crud.js')).benchmarkCrud,
  'break-lock': async () => (await import('./break-lock.js')).breakLockCommand,
  check: async () => (await import('./check.js')).check,
  compact: async () => (await import('./compact.js')).compact,
  config: async () => (await import('./config.js')).config,
  commit: async () => (await import('./commit.js')).commit,
  create: async () => (await import('./create.js')).create,
  'debug convert-profile': async () => (await import('./debug/convert-profile.js')).debugConvertProfile,
  'debug delete-obj': async () => (await import('./debug/object.js')).debugDeleteObj,
  'debug dump-archive': async () => (await import('./debug/archive.js')).debugDumpArchive,
  'debug dump-archive-items': async () => (await import('./debug/archive.js')).debugDumpArchiveItems,
  'debug dump-hints': async () => (await import('./debug/repository.js')).debugDumpHints,
  'debug dump-manifest': async () => (await import('./debug/repository.js')).debugDumpManifest,
  'debug dump-repo-objs': async () => (await import('./debug/repository.js')).debugDumpRepoObjs,
  'debug get-obj': async () => (await import('./debug/object.js')).debugGetObj,
  'debug id-hash': async () => (await import('./debug/object.js')).debugIdHash,
  'debug info': async () => (await import('./debug/info.js')).debugInfo,
  'debug put-obj': async () => (await import('./debug/object.js')).debugPutObj,
  'debug refcount-obj': async () => (await import('./debug/object.js')).debugRefcountObj,
  'debug search-repo-objs': async () => (await import('./debug/repository.js')).debugSearchRepoObjs,
  delete: async () => (await import('./delete.js')).deleteCommand,
  diff: async () => (await import('./diff.js')).diff,
  'export-tar': async () => (await import('./export-tar.js')).exportTar,
  extract: async () => (await import('./extract.js')).extract,
  help: async () => (await import('./help.js')).help,
  'import-tar': async () => (await import('./import-tar.js')).importTarCommand,
  info: async () => (await import('./info.js')).info,
  init: async () => (await import('./init.js')).init,
  'key change-passphrase': async () => (await import('./key/change-passphrase.js')).keyChangePassphrase,
  'key export': async () => (await import('./key/export.js')).keyExport,
  'key import': async () => (await import('./key/import.js')).keyImport,
  'key migrate-to-repokey': async () => (await import('./key/migrate-to-repokey.js')).keyMigrateToRepokey,
  list: async () => (await import('./list.js')).list,
  mount: async () => (await import('./mount.js')).mount,
  prune: async () => (await import('./prune.js')).prune,
  recreate: async () => (await import('./recreate.js')).recreate,
  rename: async () => (await import('./rename.js')).rename,
  umount: async () => (await import('./umount.js')).umount,
  upgrade: async () => (await import('./upgrade.js')).upgrade,
  version: async () => (await import('./version.js')).version,
  'with-lock': async () => (await import('./with-lock.js')).withLock,
}

/** Commands and options that Borg does not have. */
export const ownCommands: ExtraCommands = {
  check: withOptions('check', { flags: ['-n', '--dry-run'], kind: 'flag' }),
  commit: { positionals: [{ name: 'mountpoint', nargs: 1, metavar: 'MOUNTPOINT' }, { name: 'name', nargs: '?', metavar: 'NAME' }] },
  version: { positionals: [] },
}

/** A command of Borg with options of our own behind its own. */
function withOptions(command: string, ...options: readonly OptionSpec[]): CommandSpec {
  const spec = commandSpecs[command]!
  return { ...spec, options: [...(spec.options ?? []), ...options] }
}
