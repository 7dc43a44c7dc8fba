/** A Dispatcher whose answers go to a file instead of the kernel, and a core that says what it was asked. */
import { closeSync, fstatSync, mkdtempSync, openSync, readSync, rmSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Call, FsCore } from '../../src/fs/core.js'
import { Dispatcher, type DispatchOptions } from '../../src/fs/fuse/kernel/dispatch.js'
import { Replies } from '../../src/fs/fuse/kernel/replies.js'

export interface Asked {
  readonly operation: string
  readonly args: readonly unknown[]
  readonly call: Call<unknown> | undefined
}

export class RecordedReplies {
  readonly dispatcher: Dispatcher
  readonly asked: Asked[] = []
  readonly #folder = mkdtempSync(join(tmpdir(), 'borgfs-replies-'))
  readonly #fd = openSync(join(this.#folder, 'replies'), 'wx+')
  #position = 0

  /** `answers`: by operation, what the core answers; undefined for the rest. Functions are called with the operation's arguments. */
  constructor(answers: Record<string, unknown> = {}, options: DispatchOptions = {}) {
    const core = new Proxy({}, {
      get: (_target, operation: string) => {
        if (operation === 'killsPrivileges') return answers.killsPrivileges
        if (operation === 'appliesUmask') return answers.appliesUmask
        if (operation === 'access' && !('access' in answers)) return undefined
        return (...args: unknown[]) => this.#ask(operation, args, answers[operation])
      },
    }) as FsCore
    this.dispatcher = new Dispatcher(core, new Replies(this.#fd), options)
  }

  /** Hands over one request and returns what was written for it at once. */
  send(request: Buffer): Buffer {
    request.copy(this.dispatcher.slot.bytes)
    const { dispatcher } = this
    const length = dispatcher.handle(request.length)
    writeSync(this.#fd, dispatcher.slot.bytes, 0, length)
    return this.written()
  }

  /** What was written since the last look. */
  written(): Buffer {
    const bytes = Buffer.alloc(fstatSync(this.#fd).size - this.#position)
    readSync(this.#fd, bytes, 0, bytes.length, this.#position)
    this.#position += bytes.length
    return bytes
  }

  close(): void {
    closeSync(this.#fd)
    rmSync(this.#folder, { recursive: true })
  }

  #ask(operation: string, args: unknown[], answer: unknown): unknown {
    const last = args.at(-1)
    const isCall = typeof last === 'object' && last !== null && 'defer' in last
    const call = isCall ? (last as Call<unknown>) : undefined
    const plain = (isCall ? args.slice(0, -1) : args).map((value) => (Buffer.isBuffer(value) ? value.toString('latin1') : value))
    this.asked.push({ operation, args: plain, call: call && { ...facts(call), defer: () => () => undefined } })
    return typeof answer === 'function' ? (answer as (...args: unknown[]) => unknown)(...args) : answer
  }
}

function facts({ uid, gid, pid, killSetId }: Call<unknown>): Omit<Call<unknown>, 'defer'> {
  return { uid, gid, pid, killSetId: killSetId ?? false }
}
