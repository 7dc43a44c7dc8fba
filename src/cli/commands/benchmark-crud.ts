/** `benchmark crud` (commands.md): how fast archives of made-up files are created, read, updated and deleted in a repository. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { randomFillSync } from 'node:crypto'
import { join } from 'node:path'
import { BorgError } from '../../engine/errors.js'
import { canonical } from '../../engine/location.js'
import { native } from '../../engine/native.js'
import { files, removeTree } from '../../engine/platform/files.js'
import type { Command } from '../command.js'
import type { CommandContext } from '../context.js'
import { fileError } from '../output/file-error.js'
import { flushOutput, print } from '../output/stdout.js'
import { formatSize } from '../output/units.js'

interface Sample {
  readonly name: string
  readonly count: number
  readonly size: number
  readonly random: boolean
}

const samples: readonly Sample[] = ([['BIG', 10, 100_000_000], ['MEDIUM', 1000, 1_000_000], ['SMALL', 10_000, 10_000]] as const)
  .flatMap(([name, count, size]) => [false, true].map(random => ({ name: `${random ? 'R' : 'Z'}-${name}`, count, size, random })))
const quickSamples: readonly Sample[] = [false, true].map(random => ({ name: `${random ? 'R' : 'Z'}-TEST`, count: 1, size: 1, random }))

export const benchmarkCrud: Command = async context => {
  const repository = canonical(context.location('repository'))
  const folder = join(context.positional('path')[0]!, 'borg-test-data')
  for (const sample of context.env._BORG_BENCHMARK_CRUD_TEST === undefined ? samples : quickSamples) {
    makeFolder(folder)
    let seconds: Readonly<Record<'C' | 'R' | 'U' | 'D', number>>
    try {
      fill(folder, sample)
      seconds = await measure(context, `${repository}::borg-benchmark-crud`, folder)
    } finally {
      removeTree(folder)
    }
    const { name, count, size, random } = sample
    for (const letter of ['C', 'R', 'U', 'D'] as const) {
      const rate = (count * size) / 1e6 / seconds[letter]
      print(`${letter}-${name.padEnd(10)} ${rate.toFixed(2).padStart(9)} MB/s (${count} * ${formatSize(size)} ${random ? 'random' : 'all-zero'} files: ${seconds[letter].toFixed(2)}s)\n`)
    }
    flushOutput()
  }
}

async function measure(context: CommandContext, archive: string, folder: string): Promise<Record<'C' | 'R' | 'U' | 'D', number>> {
  const timed = async (...words: string[]): Promise<number> => {
    const start = performance.now()
    await run(context, words)
    return (performance.now() - start) / 1000
  }
  const create = ['create', '--compression=none']
  // Without what is known of files from earlier runs, so that all are read.
  const C = await timed(...create, '--files-cache=disabled', `${archive}1`, folder)
  await run(context, [...create, `${archive}2`, folder])
  await run(context, ['delete', `${archive}2`])
  const U = await timed(...create, `${archive}3`, folder)
  await run(context, ['delete', `${archive}3`])
  const R = await timed('extract', '--dry-run', `${archive}1`)
  // The last one that has the data.
  const D = await timed('delete', `${archive}1`)
  return { C, R, U, D }
}

/** A command of our own, as a person would call it. */
async function run({ signal }: CommandContext, words: readonly string[]): Promise<void> {
  signal.throwIfAborted()
  const child = spawn(process.execPath, [...process.execArgv, process.argv[1]!, ...words], { stdio: 'inherit' })
  const [code] = await once(child, 'close') as [number | null]
  signal.throwIfAborted()
  if (code !== 0) throw new BorgError('Error', `Error: the benchmark was given up: ${words[0]} ended with exit code ${code}.`)
}

function makeFolder(folder: string): void {
  try {
    files.makeDirectory(folder)
  } catch (error) {
    throw fileError(error, folder)
  }
}

/** On disk, and not in memory any more. */
function fill(folder: string, { count, size, random }: Sample): void {
  const content = Buffer.alloc(size)
  for (let number = 0; number < count; number++) {
    if (random) randomFillSync(content)
    const fd = files.open(join(folder, `file_${number}`), 'wx')
    try {
      files.writeAll(fd, content)
      files.sync(fd)
      native().dropCache(fd, 0, size)
    } finally {
      files.close(fd)
    }
  }
}
