/** `debug info` (commands.md §10): what a report of a fault should say. */
import { readFileSync } from 'node:fs'
import { hostname, release, type, version, machine } from 'node:os'
import { ownVersion } from '../version.js'
import { borgVersion } from '../../../engine/constants.js'
import { thisProcess } from '../../../engine/platform/process-id.js'
import type { Command } from '../../command.js'
import { print } from '../../output/stdout.js'

export const debugInfo: Command = context => {
  const id = thisProcess()
  if ((context.env.BORG_SHOW_SYSINFO ?? 'yes').toLowerCase() !== 'no') {
    const original = context.env.SSH_ORIGINAL_COMMAND
    print(`${[
      `Platform: ${[type(), hostname(), release(), version(), machine()].join(' ')}`,
      `Linux: ${distribution()}`,
      `Borg: ${borgVersion}  borgfs: ${ownVersion()}  Node: ${process.versions.node}  V8: ${process.versions.v8}  OpenSSL: ${process.versions.openssl}  fuse: kernel`,
      `PID: ${process.pid}  CWD: ${process.cwd()}`,
      `sys.argv: [${context.argv.map(word => `'${word}'`).join(', ')}]`,
      `SSH_ORIGINAL_COMMAND: ${original === undefined ? 'None' : `'${original}'`}`,
    ].join('\n')}\n`)
  }
  print(`\nCRC implementation: zlib\nProcess ID: ('${id.host}', ${id.pid}, ${id.thread})\n`)
  return Promise.resolve()
}

function distribution(): string {
  try {
    return /^PRETTY_NAME="?([^"\n]*)"?$/m.exec(readFileSync('/etc/os-release', 'utf8'))?.[1] ?? 'Unknown Linux'
  } catch {
    return 'Unknown Linux'
  }
}
