/** A command: one file of commands/, named as it is typed. */
import type { CommandContext } from './context.js'

/** Errors are thrown; warnings are noted in context.exit. */
export type Command = (context: CommandContext) => Promise<void>
