/** Chunker parameters as option text and as archives store them (chunker.md §1). */
import { defaultChunkerParams, maxObjectBytes } from '../constants.js'
import { BorgError } from '../errors.js'
import type { MsgValue } from '../msgpack.js'
import { BuzhashChunker } from './buzhash.js'
import type { Chunker, ChunkerParams } from './chunker.js'
import { FixedChunker } from './fixed.js'

export class ChunkerParamsError extends BorgError {
  constructor(text: string, reason: string) {
    super('CommandError', `invalid ChunkerParams value: '${text}' (${reason})`, 2)
  }
}

const lowestExponent = 6, highestExponent = 23
const lowestBlock = 64

/** ChunkerParamsError says what is wrong. */
export function parseChunkerParams(text: string): ChunkerParams {
  const fail = (reason: string): never => {
    throw new ChunkerParamsError(text, reason)
  }
  const fields = text.trim().split(',')
  const word = fields[0]!.toLowerCase()
  if (word === 'default' && fields.length === 1) return defaultChunkerParams
  const named = word === 'fixed' || word === 'buzhash'
  const numbers = (named ? fields.slice(1) : fields).map(field => (/^\s*[+-]?\d+\s*$/.test(field) ? Number(field) : NaN))
  if (numbers.some(Number.isNaN)) fail('numbers are wanted')
  if (word === 'fixed') {
    const [block, header = 0] = numbers
    if (block === undefined || numbers.length > 2) return fail('fixed,BLOCK_SIZE[,HEADER_SIZE]')
    if (block < lowestBlock || block > maxObjectBytes) fail(`the block size must be from ${lowestBlock} to ${maxObjectBytes}`)
    if (header > maxObjectBytes) fail(`the header size must be at most ${maxObjectBytes}`)
    return ['fixed', block, header]
  }
  const [min, max, mask, window] = numbers
  if (numbers.length !== 4) return fail('[buzhash,]MIN,MAX,MASK,WINDOW')
  if (!(lowestExponent <= min! && min! <= mask! && mask! <= max! && max! <= highestExponent)) fail(`${lowestExponent} <= MIN <= MASK <= MAX <= ${highestExponent} must hold`)
  return ['buzhash', min!, max!, mask!, window!]
}

/** Params of an archive's metadata; four bare numbers mean buzhash. undefined if there are none or they are unknown. */
export function chunkerParamsFrom(value: MsgValue | undefined): ChunkerParams | undefined {
  if (!Array.isArray(value)) return undefined
  const [first, ...rest] = value
  if (typeof first === 'number' && value.length === 4) return ['buzhash', ...(value as [number, number, number, number])]
  const word = Buffer.isBuffer(first) ? first.toString('latin1') : ''
  if (word === 'buzhash' && rest.length === 4) return ['buzhash', ...(rest as [number, number, number, number])]
  if (word === 'fixed' && rest.length >= 1) return ['fixed', rest[0] as number, (rest[1] as number | undefined) ?? 0]
  return undefined
}

/** ChunkerParamsError for buzhash params that no file could be cut with. `sparse` matters to fixed chunkers only. */
export function chunkerFor(params: ChunkerParams, seed: number, options: { sparse?: boolean } = {}): Chunker {
  if (params[0] === 'fixed') return new FixedChunker(params, options)
  const [, minExp, maxExp, , window] = params
  if (window < 1 || window + 2 ** minExp + 1 > 2 ** maxExp) throw new ChunkerParamsError(params.join(','), 'the window and the minimum must fit into the maximum')
  return new BuzhashChunker(params, seed)
}
