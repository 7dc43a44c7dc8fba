/** Which parts of src an input reached for the first time, by V8's block coverage: cheap enough to ask after each input. */
import { Session } from 'node:inspector'
import type { Novelty } from './target.js'

interface Range {
  startOffset: number
  endOffset: number
  count: number
}
interface ScriptCoverage {
  scriptId: string
  url: string
  functions: { ranges: Range[] }[]
}

export class Coverage implements Novelty {
  readonly #session = new Session()
  readonly #seen = new Set<string>()

  constructor() {
    this.#session.connect()
    this.#session.post('Profiler.enable')
    // Binary: what was reported once is not reported again, so answers are short.
    this.#session.post('Profiler.startPreciseCoverage', { callCount: false, detailed: true })
  }

  isNew(): boolean {
    let result: ScriptCoverage[] = []
    // Answered at once: the session lives in this thread.
    this.#session.post('Profiler.takePreciseCoverage', (_error, answer) => {
      result = (answer as { result?: ScriptCoverage[] } | undefined)?.result ?? []
    })
    let isNew = false
    for (const { scriptId, url, functions } of result) {
      if (!url.includes('/dist/src/')) continue
      for (const { ranges } of functions) {
        for (const { startOffset, endOffset, count } of ranges) {
          const key = `${scriptId}:${startOffset}:${endOffset}:${count > 0}`
          if (this.#seen.has(key)) continue
          this.#seen.add(key)
          isNew = true
        }
      }
    }
    return isNew
  }

  /** Ranges met so far. */
  get size(): number {
    return this.#seen.size
  }

  close(): void {
    this.#session.post('Profiler.stopPreciseCoverage')
    this.#session.disconnect()
  }
}
