/** Everything that is not the answer: text lines or JSON objects on stderr (output.md §7). */
import type { Log, LogLevel } from '../../engine/log.js'
import { writeFully } from './stdout.js'

const severity: Record<LogLevel, number> = { debug: 10, info: 20, warning: 30, error: 40 }
const levelNames: Record<LogLevel, string> = { debug: 'DEBUG', info: 'INFO', warning: 'WARNING', error: 'ERROR' }

export type Threshold = LogLevel | 'critical'

export class StderrLog implements Log {
  threshold: Threshold = 'warning'
  json = false
  /** Loggers that print whatever the threshold. */
  readonly #always = new Set<string>()
  /** Whether a progress line stands on the terminal. */
  #progressLength = 0

  always(topic: string): void {
    this.#always.add(topic)
  }

  write(level: LogLevel, topic: string, message: string): void {
    this.message(level, topic, message)
  }

  message(level: LogLevel, topic: string, message: string, msgid?: string): void {
    const lowest = this.threshold === 'critical' ? 50 : severity[this.threshold]
    if (severity[level] < lowest && !this.#always.has(topic)) return
    if (this.json) {
      this.object({ type: 'log_message', time: Date.now() / 1000, message, levelname: levelNames[level], name: topic, ...(msgid ? { msgid } : {}) })
    } else {
      this.clearProgress()
      this.line(message)
    }
  }

  /** One JSON object on a line of its own, in a single write. */
  object(value: Record<string, unknown>): void {
    this.#write(`${pythonJson(value)}\n`)
  }

  /** Text as it is, also under --log-json: usage errors, deprecations. */
  line(text: string): void {
    this.#write(`${text}\n`)
  }

  /** A line that the next one overwrites. */
  progressLine(text: string): void {
    // A longer one that is there would show behind it.
    this.#write(`${text.padEnd(this.#progressLength)}\r`)
    this.#progressLength = text.length
  }

  clearProgress(): void {
    if (this.#progressLength === 0) return
    this.#write(`${' '.repeat(this.#progressLength)}\r`)
    this.#progressLength = 0
  }

  #write(text: string): void {
    try {
      writeFully(2, Buffer.from(text))
    } catch {
      // Nobody listens any more: that must not end a backup.
    }
  }
}

/** JSON as Python's json.dumps writes it: `", "` and `": "`, ASCII only. */
export function pythonJson(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(pythonJson).join(', ')}]`
  if (typeof value === 'object' && value !== null) {
    return `{${Object.entries(value).map(([key, entry]) => `${pythonJson(key)}: ${pythonJson(entry)}`).join(', ')}}`
  }
  return scalarJson(value)
}

/** The same with an indent of 4 and sorted keys. */
export function indentedJson(value: unknown, indent = ''): string {
  const inner = `${indent}    `
  if (Array.isArray(value)) return value.length === 0 ? '[]' : `[\n${value.map(entry => inner + indentedJson(entry, inner)).join(',\n')}\n${indent}]`
  if (typeof value === 'object' && value !== null) {
    const entries = Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1))
    return entries.length === 0 ? '{}' : `{\n${entries.map(([key, entry]) => `${inner}${scalarJson(key)}: ${indentedJson(entry, inner)}`).join(',\n')}\n${indent}}`
  }
  return scalarJson(value)
}

/** A string, number, boolean or null. */
export function scalarJson(value: unknown): string {
  // Python goes over to exponents earlier, and writes at least two digits of them.
  if (typeof value === 'number' && value !== 0 && Math.abs(value) < 1e-4) return value.toExponential().replace(/e([+-])(\d)$/, 'e$10$2')
  return (JSON.stringify(value) ?? 'null').replace(/[\x7f-\uffff]/g, character => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`)
}
