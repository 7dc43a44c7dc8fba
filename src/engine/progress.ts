/** The port for progress. Adapters (text line, JSON) live in cli/output; everything is optional to listen to. */

export interface ArchiveProgress {
  readonly originalSize: number
  readonly compressedSize: number
  readonly deduplicatedSize: number
  readonly fileCount: number
  /** Path of the item in hand, bytes. */
  readonly path: Uint8Array
}

export interface Progress {
  /** create, recreate, import-tar. */
  archive?(state: ArchiveProgress): void
  /** A step with a known total, such as extract. `message` is the finished sentence. */
  percent?(msgid: string, current: number, total: number, message: string, info?: readonly string[]): void
}
