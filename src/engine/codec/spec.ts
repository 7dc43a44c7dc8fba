/** The option texts of -C/--compression (compression.md §2). */
import { auto } from './auto.js'
import type { Codec } from './codec.js'
import { CompressionSpecError } from './errors.js'
import { lz4 } from './lz4.js'
import { lzma } from './lzma.js'
import { none } from './none.js'
import { obfuscate } from './obfuscate.js'
import { zlib } from './zlib.js'
import { zstd } from './zstd.js'

/** CompressionSpecError if the text is none. */
export function parseCompression(text: string): Codec {
  const fields = text.split(',')
  const codec = parseFields(fields)
  if (!codec) throw new CompressionSpecError(text)
  return codec
}

function parseFields(fields: readonly string[]): Codec | undefined {
  const [name, ...rest] = fields
  switch (name) {
    case 'none':
      return none
    case 'lz4':
      return lz4
    case 'zlib':
    case 'lzma':
    case 'zstd': {
      const [lowest, highest, standard] = name === 'zstd' ? [1, 22, 3] : [0, 9, 6]
      if (rest.length > 1) return undefined
      const level = rest.length === 0 ? standard! : integer(rest[0]!)
      if (level === undefined || level < lowest! || level > highest!) return undefined
      return name === 'zlib' ? zlib(level) : name === 'lzma' ? lzma(level) : zstd(level)
    }
    case 'auto': {
      if (rest.length < 1 || rest.length > 2) return undefined
      const inner = parseFields(rest)
      return inner && auto(inner)
    }
    case 'obfuscate': {
      if (rest.length < 2) return undefined
      const spec = integer(rest[0]!)
      if (spec === undefined || !((spec >= 1 && spec <= 6) || (spec >= 110 && spec <= 123) || spec === 250)) return undefined
      const inner = parseFields(rest.slice(1))
      return inner && obfuscate(spec, inner)
    }
  }
  return undefined
}

function integer(text: string): number | undefined {
  return /^\s*[+-]?\d+\s*$/.test(text) ? Number(text) : undefined
}
