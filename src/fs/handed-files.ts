/**
 * Files of an archive whose content the kernel was given before they were opened. Opening one needs no handle of its own then, so the transport
 * may answer for it: nothing is to be known of who has it open. Should the kernel ask for such content after all, it has lost it, and nothing
 * is given any more until none of these handles is left: a page is locked while it is read, and who gives it would wait for the lock.
 */

/** The handle of everyone who opened such a file. Others count from 1. */
export const handedHandle = 0

const unknown = 0, given = 1, told = 2

export class HandedFiles {
  /** By row: 1, its opening is answered by whoever sees this; 2, the content is there too, but whoever reads on from here wants to be told. */
  readonly states: Uint8Array
  /** One number: handles given out and not released. */
  readonly opens = new Float64Array(1)
  #any = false
  #blocked = false

  constructor(rows: number) {
    this.states = new Uint8Array(rows)
  }

  /** Nobody may have the file open by another handle. */
  mayGive(row: number): boolean {
    if (this.#blocked && this.opens[0] === 0) this.#blocked = false
    return !this.#blocked && this.states[row] === unknown
  }

  /** The kernel has its content, or it has none. `tell`: let `open` know. */
  give(row: number, tell: boolean): void {
    this.states[row] = tell ? told : given
    this.#any = true
  }

  has(row: number): boolean {
    return this.states[row] !== unknown
  }

  /** A handle for a file that `has` holds for. `tells`: that somebody opens it should be told, once. */
  open(row: number): { readonly fh: typeof handedHandle; readonly tells: boolean } {
    const tells = this.states[row] === told
    this.states[row] = given
    this.opens[0]!++
    return { fh: handedHandle, tells }
  }

  /** False if there is no such handle. */
  release(): boolean {
    if (this.opens[0] === 0) return false
    this.opens[0]!--
    return true
  }

  /** The kernel asks for the content of one of them. */
  lost(): void {
    if (!this.#any) return
    this.#any = false
    this.#blocked = true
    this.states.fill(unknown)
  }
}
