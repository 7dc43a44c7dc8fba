/** Shared memory that byte workers put entries into, used by one batch after the other. */
import { native } from '../native.js'
import { letGoShared } from '../shared-garbage.js'

const minBytes = 2 << 20

export class Outputs {
  readonly #free: SharedArrayBuffer[] = []

  /** At least so much, until it is given back. */
  take(bytes: number): SharedArrayBuffer {
    const at = this.#free.findLastIndex(output => output.byteLength >= bytes)
    if (at >= 0) return this.#free.splice(at, 1)[0]!
    // A larger one replaces a smaller one, so that their number stays that of the batches in flight.
    letGoShared(this.#free.pop()?.byteLength ?? 0)
    return new SharedArrayBuffer(Math.max(minBytes, 2 ** Math.ceil(Math.log2(bytes))))
  }

  give(output: SharedArrayBuffer): void {
    this.#free.push(output)
  }

  /** What no batch uses goes back to the host, and comes again when it is filled the next time. */
  rest(): void {
    for (const output of this.#free) native().giveBackPages(new Uint8Array(output))
  }
}
