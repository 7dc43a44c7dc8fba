/** Where the fixtures lie: beside the sources, also when the tests run from a compiled tree elsewhere. */
import { existsSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

/** Absolute path of test/fixtures/PARTS. */
export function fixturePath(...parts: string[]): string {
  return join(process.env.BORGFS_FIXTURES ?? found(), ...parts)
}

/** A JSON fixture, parsed. */
export function fixtureJson<T>(...parts: string[]): T {
  return JSON.parse(readFileSync(fixturePath(...parts), 'utf8')) as T
}

function found(): string {
  let folder = dirname(fileURLToPath(import.meta.url))
  for (;;) {
    const candidate = join(folder, 'test', 'fixtures')
    if (existsSync(join(candidate, 'vectors'))) return candidate
    const parent = dirname(folder)
    if (parent === folder) throw new Error('test/fixtures not found above the compiled tests')
    folder = parent
  }
}
