/** The core's operations as promises, for a transport that has time. An Errno becomes an FsError. */
import { type Answer, type Call, LATER } from '../../core.js'
import { FsError } from '../../errno.js'
import { Errno } from '../../types.js'

/** libfuse 2's path interface, as fuse-native passes it on, does not say who asks: everybody is who mounted. */
const uid = process.getuid?.() ?? 0
const gid = process.getgid?.() ?? 0

/** Asks once; `ask` gets the call to hand to the core. What lies in borrowed memory must be copied when it was deferred. */
export function answerOf<T>(ask: (call: Call<T>) => Answer<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    const settle = (answer: T | Errno): void => (answer instanceof Errno ? reject(new FsError(answer, answer.code)) : resolve(answer))
    const answer = ask({ uid, gid, pid: 0, defer: () => settle })
    if (answer !== LATER) settle(answer)
  })
}
