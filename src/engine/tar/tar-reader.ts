/**
 * Members of a tar, one after the other: v7, ustar, pax and GNU's format, sparse files of all kinds. Names are bytes, which is why no library reads them: those give texts.
 * (https://www.gnu.org/software/tar/manual/html_node/Standard.html and Sparse-Formats.html, POSIX.1-2017 pax)
 */
import type { ByteSource } from '../chunker/chunker.js'
import { BorgError } from '../errors.js'
import { blockBytes, type TarFacts } from './gnu-header.js'

export interface TarMember extends TarFacts {
  readonly kind: 'file' | 'hardLink' | 'symlink' | 'characterDevice' | 'blockDevice' | 'directory' | 'fifo' | 'unknown'
  /** As the tar has it. */
  readonly typeFlag: string
  readonly mtimeNs: bigint
}

/** A tar that is none, or ends too early. */
export class TarError extends BorgError {
  constructor(reason: string) {
    super('Error', `Error: the tar cannot be read: ${reason}`)
  }
}

const kinds: Readonly<Record<string, TarMember['kind']>> = {
  '0': 'file', '\0': 'file', '7': 'file', S: 'file', '1': 'hardLink', '2': 'symlink', '3': 'characterDevice', '4': 'blockDevice', '5': 'directory', '6': 'fifo',
}
const bufferBytes = 1 << 20
/** Names and pax records longer than this are an attack. */
const maxTextBytes = 1 << 20
const slash = 0x2f

/** Where data of a sparse file lies in it. */
interface Extent {
  readonly offset: number
  readonly bytes: number
}

type PaxRecords = Map<string, Buffer>

export class TarReader implements ByteSource {
  readonly #source: ByteSource
  readonly #ignoreZeros: boolean
  readonly #buffer = Buffer.allocUnsafe(bufferBytes)
  #start = 0
  #end = 0
  /** Bytes of the tar before #start. */
  #position = 0
  /** Stored bytes of the member's content that were not read, and the zeros behind them. */
  #stored = 0
  #padding = 0
  /** What comes next of its content: data and holes in turn. */
  #pieces: { readonly hole: boolean; bytes: number }[] = []
  readonly #global: PaxRecords = new Map()

  /** `ignoreZeros`: what follows the end of a tar is a further one. */
  constructor(source: ByteSource, { ignoreZeros }: { readonly ignoreZeros: boolean }) {
    this.#source = source
    this.#ignoreZeros = ignoreZeros
  }

  /** The next member, whatever was read of the one before; undefined at the end, when the source was read to its end. TarError. */
  async next(): Promise<TarMember | undefined> {
    await this.#skip(this.#stored + this.#padding)
    this.#stored = this.#padding = 0
    this.#pieces = []
    const local: PaxRecords = new Map()
    for (;;) {
      const header = await this.#header()
      if (!header) {
        if (this.#position === 0) throw new TarError('it is empty')
        while (await this.#fill(1)) this.#start = this.#end
        return undefined
      }
      const type = String.fromCharCode(header[156]!)
      const size = sizeAt(header, 124)
      switch (type) {
        case 'L': local.set('path', untilNul(await this.#text(size))); continue
        case 'K': local.set('linkpath', untilNul(await this.#text(size))); continue
        case 'x': case 'X': readPax(await this.#text(size), local); continue
        case 'g': readPax(await this.#text(size), this.#global); continue
      }
      return this.#member(header, type, new Map([...this.#global, ...local]))
    }
  }

  /** Content of the member; 0 is its end. TarError if the tar ends before. */
  async read(into: Uint8Array): Promise<number> {
    let done = 0
    for (let piece; done < into.length && (piece = this.#pieces[0]); ) {
      const most = Math.min(piece.bytes, into.length - done)
      let count = most
      if (piece.hole) into.fill(0, done, done + most)
      else {
        if (!(await this.#fill(1))) throw new TarError(`it ends within a file, after ${this.#position} bytes`)
        count = this.#buffer.copy(into, done, this.#start, Math.min(this.#end, this.#start + most))
        this.#take(count)
        this.#stored -= count
      }
      done += count
      piece.bytes -= count
      if (piece.bytes === 0) this.#pieces.shift()
    }
    return done
  }

  async #member(header: Buffer, typeFlag: string, pax: PaxRecords): Promise<TarMember> {
    const posix = header.toString('latin1', 257, 263) === 'ustar\0'
    const prefix = posix ? untilNul(header.subarray(345, 500)) : noBytes
    const short = untilNul(header.subarray(0, 100))
    let name = Buffer.from(pax.get('GNU.sparse.name') ?? pax.get('path') ?? (prefix.length > 0 ? Buffer.concat([prefix, Buffer.from('/'), short]) : short))
    // Before there was a flag for directories.
    let kind = kinds[typeFlag] ?? 'unknown'
    if (typeFlag === '\0' && name.at(-1) === slash) kind = 'directory'
    if (kind === 'directory') while (name.length > 1 && name.at(-1) === slash) name = name.subarray(0, -1)
    const stored = kind === 'file' || kind === 'unknown' ? paxNumber(pax, 'size') ?? sizeAt(header, 124) : 0
    this.#stored = stored
    this.#padding = (blockBytes - (stored % blockBytes)) % blockBytes
    const size = kind === 'file' ? await this.#lay(header, typeFlag, pax, stored) : 0
    return {
      kind, typeFlag, name, linkName: Buffer.from(pax.get('linkpath') ?? untilNul(header.subarray(157, 257))), mode: numberAt(header, 100, 8) & 0o7777,
      uid: paxNumber(pax, 'uid') ?? numberAt(header, 108, 8), gid: paxNumber(pax, 'gid') ?? numberAt(header, 116, 8),
      user: Buffer.from(pax.get('uname') ?? untilNul(header.subarray(265, 297))), group: Buffer.from(pax.get('gname') ?? untilNul(header.subarray(297, 329))),
      size, mtimeNs: paxTime(pax.get('mtime')) ?? BigInt(numberAt(header, 136, 12)) * 1_000_000_000n, major: numberAt(header, 329, 8), minor: numberAt(header, 337, 8),
    }
  }

  /** Says how the content is made of what is stored, and its size. */
  async #lay(header: Buffer, typeFlag: string, pax: PaxRecords, stored: number): Promise<number> {
    const extents: Extent[] = []
    let size: number | undefined
    if (typeFlag === 'S') {
      size = sizeAt(header, 483)
      putExtents(header, 386, 4, extents)
      // The map goes on before the content, and is not counted in its size.
      for (let more = header[482]; more; ) {
        const block = await this.#block()
        if (!block) throw new TarError('it ends within the map of a sparse file')
        putExtents(block, 0, 21, extents)
        more = block[504]
      }
    } else if (pax.has('GNU.sparse.major')) {
      size = paxNumber(pax, 'GNU.sparse.realsize')
      await this.#readMap(extents)
    } else if (pax.has('GNU.sparse.map')) {
      size = paxNumber(pax, 'GNU.sparse.size')
      const numbers = pax.get('GNU.sparse.map')!.toString('latin1').split(',').map(decimal)
      for (let index = 0; index + 1 < numbers.length; index += 2) extents.push({ offset: numbers[index]!, bytes: numbers[index + 1]! })
    }
    if (size === undefined) {
      if (stored > 0) this.#pieces.push({ hole: false, bytes: stored })
      return stored
    }
    let at = 0
    const put = (hole: boolean, bytes: number): void => {
      if (bytes > 0) this.#pieces.push({ hole, bytes })
    }
    for (const { offset, bytes } of extents) {
      if (offset < at) throw new TarError('the map of a sparse file is not in order')
      put(true, offset - at)
      put(false, bytes)
      at = offset + bytes
    }
    put(true, size - at)
    const data = this.#pieces.reduce((sum, piece) => sum + (piece.hole ? 0 : piece.bytes), 0)
    if (at > size || data > this.#stored) throw new TarError('the map of a sparse file does not fit its content')
    return size
  }

  /** Format 1.0: decimal numbers, a line each, in whole blocks before the data and counted in its size. */
  async #readMap(extents: Extent[]): Promise<void> {
    let text = ''
    const line = async (): Promise<number> => {
      for (;;) {
        const end = text.indexOf('\n')
        if (end >= 0) {
          const number = decimal(text.slice(0, end))
          text = text.slice(end + 1)
          return number
        }
        const block = await this.#block()
        this.#stored -= blockBytes
        if (!block || this.#stored < 0 || text.length > blockBytes) throw new TarError('the map of a sparse file is damaged')
        text += block.toString('latin1')
      }
    }
    for (let left = await line(); left > 0; left--) extents.push({ offset: await line(), bytes: await line() })
  }

  /** undefined at the end of the tar. */
  async #header(): Promise<Buffer | undefined> {
    for (;;) {
      const at = this.#position
      const block = await this.#block()
      if (!block) return undefined
      let sum = 0, signed = 0
      for (let index = 0; index < blockBytes; index++) {
        const byte = index >= 148 && index < 156 ? 0x20 : block[index]!
        sum += byte
        signed += byte < 0x80 ? byte : byte - 0x100
      }
      if (sum === 8 * 0x20) {
        if (this.#ignoreZeros) continue
        return undefined
      }
      let told: number | undefined
      try {
        told = numberAt(block, 148, 8)
      } catch {
        // No number at all.
      }
      if (told !== sum && told !== signed) throw new TarError(at === 0 ? 'it is no tar, or compressed (see --tar-filter)' : `what lies at ${at} is no header`)
      return block
    }
  }

  /** What stands for a name, or pax records. */
  async #text(bytes: number): Promise<Buffer> {
    if (bytes > maxTextBytes) throw new TarError(`a name or its like has ${bytes} bytes`)
    const text = Buffer.alloc(bytes)
    for (let done = 0; done < bytes; ) {
      if (!(await this.#fill(1))) throw new TarError('it ends within a name')
      const count = this.#buffer.copy(text, done, this.#start, Math.min(this.#end, this.#start + bytes - done))
      this.#take(count)
      done += count
    }
    await this.#skip((blockBytes - (bytes % blockBytes)) % blockBytes)
    return text
  }

  /** A copy. undefined if nothing is left. */
  async #block(): Promise<Buffer | undefined> {
    if (!(await this.#fill(blockBytes))) {
      if (this.#end > this.#start) throw new TarError(`it ends within a block, after ${this.#position + this.#end - this.#start} bytes`)
      return undefined
    }
    const block = Buffer.from(this.#buffer.subarray(this.#start, this.#start + blockBytes))
    this.#take(blockBytes)
    return block
  }

  async #skip(bytes: number): Promise<void> {
    for (let left = bytes; left > 0; ) {
      if (!(await this.#fill(1))) throw new TarError(`it ends within a file, after ${this.#position} bytes`)
      const count = Math.min(left, this.#end - this.#start)
      this.#take(count)
      left -= count
    }
  }

  #take(count: number): void {
    this.#start += count
    this.#position += count
  }

  /** Whether so many bytes are in the buffer now. */
  async #fill(bytes: number): Promise<boolean> {
    while (this.#end - this.#start < bytes) {
      if (this.#start > 0) {
        this.#buffer.copyWithin(0, this.#start, this.#end)
        this.#end -= this.#start
        this.#start = 0
      }
      const count = await this.#source.read(this.#buffer.subarray(this.#end))
      if (count === 0) return false
      this.#end += count
    }
    return true
  }
}

const noBytes = Buffer.alloc(0)

function untilNul(bytes: Buffer): Buffer {
  const end = bytes.indexOf(0)
  return end < 0 ? bytes : bytes.subarray(0, end)
}

/** Octal digits between spaces and NULs, or base 256. */
function numberAt(block: Buffer, offset: number, length: number): number {
  const first = block[offset]!
  if (first === 0x80 || first === 0xff) {
    let value = 0n
    for (let index = 1; index < length; index++) value = (value << 8n) | BigInt(block[offset + index]!)
    return safe(first === 0xff ? value - (1n << BigInt(8 * (length - 1))) : value)
  }
  const text = untilNul(block.subarray(offset, offset + length)).toString('latin1').trim()
  if (!/^[0-7]*$/.test(text)) throw new TarError(`'${text}' is no octal number`)
  return text === '' ? 0 : parseInt(text, 8)
}

/** What cannot be below zero, as times and ids may. */
function sizeAt(block: Buffer, offset: number): number {
  const size = numberAt(block, offset, 12)
  if (size < 0) throw new TarError(`the size ${size} is below zero`)
  return size
}

function safe(value: bigint): number {
  if (value > BigInt(Number.MAX_SAFE_INTEGER) || value < BigInt(Number.MIN_SAFE_INTEGER)) throw new TarError(`the number ${value} is too large`)
  return Number(value)
}

function decimal(text: string): number {
  if (!/^\d+$/.test(text)) throw new TarError(`'${text}' is no number`)
  return safe(BigInt(text))
}

function paxNumber(pax: PaxRecords, key: string): number | undefined {
  const value = pax.get(key)
  return value && decimal(value.toString('latin1'))
}

/** Seconds with a fraction, exactly. */
function paxTime(value: Buffer | undefined): bigint | undefined {
  if (!value) return undefined
  const match = /^(-?)(\d+)(?:\.(\d*))?$/.exec(value.toString('latin1'))
  if (!match) throw new TarError(`'${value.toString('latin1')}' is no time`)
  const ns = BigInt(match[2]!) * 1_000_000_000n + BigInt((match[3] ?? '').slice(0, 9).padEnd(9, '0'))
  return match[1] ? -ns : ns
}

/** `LENGTH KEY=VALUE\n`, again and again. An empty value takes the key back. */
function readPax(text: Buffer, into: PaxRecords): void {
  /** Format 0.0 has a key twice for each extent. */
  const map: Buffer[] = []
  for (let at = 0; at < text.length; ) {
    const space = text.indexOf(0x20, at)
    const length = space < 0 ? NaN : Number(text.toString('latin1', at, space))
    const equals = text.indexOf(0x3d, space)
    if (!(length > 0) || at + length > text.length || equals < 0 || equals >= at + length || text[at + length - 1] !== 0x0a) throw new TarError('a pax record is damaged')
    const key = text.toString('utf8', space + 1, equals)
    const value = Buffer.from(text.subarray(equals + 1, at + length - 1))
    if (key === 'GNU.sparse.offset' || key === 'GNU.sparse.numbytes') map.push(value)
    else if (value.length === 0) into.delete(key)
    else into.set(key, value)
    at += length
  }
  if (map.length > 0) into.set('GNU.sparse.map', Buffer.from(map.join(',')))
}

function putExtents(block: Buffer, offset: number, count: number, extents: Extent[]): void {
  for (let index = 0; index < count; index++) {
    const at = offset + 24 * index
    // The first empty one ends the map.
    if (block[at + 12] === 0) return
    extents.push({ offset: sizeAt(block, at), bytes: sizeAt(block, at + 12) })
  }
}
