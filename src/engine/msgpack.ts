/** The old MessagePack dialect of Borg 1.x (archive.md §1). Being filled in. */
/** raw is Buffer, maps have byte-string keys (text.ts), integers beyond 2^53 are bigint. */
export type MsgValue = null | boolean | number | bigint | Buffer | MsgValue[] | Map<string, MsgValue>
