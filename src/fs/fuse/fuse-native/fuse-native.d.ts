/** What the adapter uses of fuse-native 2.2.6. Names starting with `_` are its inside, which the adapter repairs. */
declare module 'fuse-native' {
  /** 0 or a count, or a negative error number. */
  type Signal = (result: number, ...values: unknown[]) => void

  export default class Fuse {
    constructor(mountpoint: string, operations: object, options: { timeout: false })
    mount(done: (error: Error | null) => void): void
    /** Native handlers by opcode; the first argument is the native record of the request. */
    _handlers: ((record: Buffer, opcode: number, ...values: unknown[]) => unknown)[]
    _fuseOptions: () => string
    _op_getxattr: (signal: Signal, path: string, name: string, into: Buffer) => void
    _op_listxattr: (signal: Signal, path: string, into: Buffer) => void
  }
}
