/** What the archives' phase of `check` says, and to whom. */
import type { ChunkId } from '../../ids.js'

export interface Finding {
  /** Only an error makes the check fail; a warning is worth a look, an info tells what a repair would mend or what is known already. */
  readonly severity: 'error' | 'warning' | 'info'
  readonly about:
    | { readonly kind: 'manifest' | 'repository' }
    | { readonly kind: 'object'; readonly id: ChunkId }
    /** Name as a byte string. */
    | { readonly kind: 'archive'; readonly archive: string }
    | { readonly kind: 'item'; readonly archive: string; readonly path: Buffer }
  /** As Borg logs it, where Borg has such a message. */
  readonly message: string
  /** What --repair does about it. */
  readonly repair?: string
}

export type PercentKind = 'check.verify_data' | 'check.rebuild_manifest' | 'check.rebuild_refcounts'

/** All of it optional to listen to. `log` gets the findings as well, in Borg's words and levels. */
export interface ArchivesCheckListener {
  log?(level: 'debug' | 'info' | 'warning' | 'error', message: string): void
  finding?(finding: Finding): void
  progress?(kind: PercentKind, done: number, total: number): void
  progressFinished?(kind: PercentKind): void
}

/** What Borg says of a damaged object. Its word for a wrong MAC is another one in check than elsewhere. */
export function damageText({ message }: Error): string {
  return message.endsWith('Encryption envelope checksum mismatch') ? 'MAC Authentication failed' : message
}
