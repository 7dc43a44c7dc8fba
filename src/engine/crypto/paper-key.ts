/**
 * A key on paper (crypto.md §7): the blob as hex in lines of 18 bytes, each with check digits, so that a person who types it in is
 * told at once which line is wrong.
 *
 *   id: LINES / first 18 digits of the repository's id / first 12 of SHA-256(blob) - check of "LINES/id/sum"
 *    1: 36 digits in groups of 6 - check of the line's number (uint16 BE) and its bytes
 */
import { createHash } from 'node:crypto'

const lineBytes = 18
const maxLines = 0xffff
const title = 'To restore key use borg key import --paper /path/to/repo\n\nBORG PAPER KEY v1\n'

function firstDigits(data: Uint8Array, count: number): string {
  return createHash('sha256').update(data).digest('hex').slice(0, count)
}

function groups(digits: string): string {
  return digits.replace(/.{6}(?=.)/g, '$& ')
}

function idPart(repositoryId: Uint8Array): string {
  return Buffer.from(repositoryId).toString('hex').slice(0, 18)
}

function lineCheck(number: number, bytes: Uint8Array): string {
  return firstDigits(Buffer.concat([Buffer.from([number >> 8, number & 255]), bytes]), 2)
}

/** The complete text, with its final newline. */
export function paperKey(blob: Buffer, repositoryId: Uint8Array): string {
  const count = Math.ceil(blob.length / lineBytes)
  const [id, sum] = [idPart(repositoryId), firstDigits(blob, 12)]
  let text = `${title}id: ${count} / ${groups(id)} / ${groups(sum)} - ${firstDigits(Buffer.from(`${count}/${id}/${sum}`), 2)}\n`
  for (let number = 1; number <= count; number++) {
    const bytes = blob.subarray((number - 1) * lineBytes, number * lineBytes)
    text += `${String(number).padStart(2)}: ${groups(bytes.toString('hex'))} - ${lineCheck(number, bytes)}\n`
  }
  return text
}

/** What became of a typed line: `again` says why the same prompt comes again, in Borg's words. */
export type TypedLine = { readonly kind: 'next' } | { readonly kind: 'again'; readonly why: string } | { readonly kind: 'other repository' } | { readonly kind: 'complete'; readonly blob: Buffer }

/** Takes the lines of a paper key as they are typed. Blanks and upper case do not matter. */
export class PaperKeyReader {
  readonly #id: string
  #lines = 0
  #sum = ''
  #parts: Buffer[] = []

  constructor(repositoryId: Uint8Array) {
    this.#id = idPart(repositoryId)
  }

  /** What is to be typed next. */
  get prompt(): string {
    return this.#lines === 0 ? 'id: ' : `${String(this.#parts.length + 1).padStart(2)}: `
  }

  take(typed: string): TypedLine {
    const parts = typed.replaceAll(' ', '').toLowerCase().split('-')
    if (parts.length !== 2) return again("each line must contain exactly one '-', try again")
    return this.#lines === 0 ? this.#takeId(parts[0]!, parts[1]!) : this.#takeBytes(parts[0]!, parts[1]!)
  }

  #takeId(data: string, check: string): TypedLine {
    const fields = data.split('/')
    if (fields.length !== 3) return again("the id line must contain exactly three '/', try again")
    if (firstDigits(Buffer.from(data), 2) !== check) return again('line checksum did not match, try same line again')
    const [count, id, sum] = fields as [string, string, string]
    const lines = /^\d{1,5}$/.test(count) ? Number(count) : 0
    if (lines < 1 || lines > maxLines) return again('internal error while parsing length')
    if (id !== this.#id) return { kind: 'other repository' }
    this.#lines = lines
    this.#sum = sum
    return { kind: 'next' }
  }

  #takeBytes(data: string, check: string): TypedLine {
    if (!/^(?:[0-9a-f]{2})*$/.test(data)) return again("only characters 0-9 and a-f and '-' are valid, try again")
    const number = this.#parts.length + 1
    const bytes = Buffer.from(data, 'hex')
    if (lineCheck(number, bytes) !== check) return again(`line checksum did not match, try line ${number} again`)
    this.#parts.push(bytes)
    if (number < this.#lines) return { kind: 'next' }
    const blob = Buffer.concat(this.#parts)
    if (firstDigits(blob, 12) === this.#sum) return { kind: 'complete', blob }
    // Every line was right and the whole is not: from the beginning.
    this.#lines = 0
    this.#parts = []
    return again('The overall checksum did not match, retry or enter a blank line to abort.')
  }
}

function again(why: string): TypedLine {
  return { kind: 'again', why }
}
