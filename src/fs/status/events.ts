/**
 * What happened to staged trees, a line each, for `tail -f MNT/.borgfs/events`. In memory and bounded: once full, the older half goes,
 * which followers see as a file that was truncated and begins anew.
 */
const maxBytes = 1 << 20

export class Events {
  #lines: Buffer[] = []
  #bytes = 0
  #content: Buffer | undefined

  /** `text` without a line end. */
  add(text: string, atMs = Date.now()): void {
    const line = Buffer.from(`${new Date(atMs).toISOString()} ${text.replace(/[\r\n]+/g, ' ')}\n`)
    this.#lines.push(line)
    this.#bytes += line.length
    if (this.#bytes > maxBytes) {
      this.#lines = this.#lines.slice(this.#lines.length >>> 1)
      this.#bytes = this.#lines.reduce((sum, { length }) => sum + length, 0)
    }
    this.#content = undefined
  }

  get content(): Buffer {
    return this.#content ??= Buffer.concat(this.#lines)
  }
}
