/** `borgfs version`: our own version and those of the parts. `--version` tells the Borg whose behaviour this is. */
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { fileURLToPath } from 'node:url'
import { borgVersion } from '../../engine/constants.js'
import type { Command } from '../command.js'
import { print } from '../output/stdout.js'

const parts = ['fuse-native', 'lru-cache', 'lz4-napi', 'lzma-native', 'minimist', 'pako', 'qr', 'sodium-native', 'zstd-napi']

export const version: Command = () => {
  print(`borgfs ${ownVersion()} (behaves as Borg ${borgVersion})\n`)
  print(`node ${process.versions.node}, OpenSSL ${process.versions.openssl}, zlib ${process.versions.zlib}, libuv ${process.versions.uv}\n`)
  for (const part of parts) print(`${part} ${partVersion(part)}\n`)
  return Promise.resolve()
}

export function ownVersion(): string {
  return versionAbove(fileURLToPath(import.meta.url), 'borgfs') ?? 'unknown'
}

/** Found beside its main file: packages need not export their package.json. */
function partVersion(name: string): string {
  let folder: string
  try {
    folder = createRequire(import.meta.url).resolve(name)
  } catch {
    return 'not installed'
  }
  return versionAbove(folder, name) ?? 'unknown'
}

/** Version in the package.json of that name, in a folder above. */
function versionAbove(path: string, name: string): string | undefined {
  for (let folder = path; folder.includes('/'); ) {
    folder = folder.slice(0, folder.lastIndexOf('/'))
    try {
      const parsed = JSON.parse(readFileSync(`${folder}/package.json`, 'utf8')) as { name?: string; version?: string }
      if (parsed.name === name && parsed.version) return parsed.version
    } catch {
      // Further up.
    }
  }
  return undefined
}
