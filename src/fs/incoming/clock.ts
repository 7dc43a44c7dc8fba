/** The time that changes of staged files get. */
let lastNs = 0n

/** Now in ns, never twice the same: tools take equal times for "unchanged". */
export function nowNs(): bigint {
  const now = BigInt(Math.floor((performance.timeOrigin + performance.now()) * 1000)) * 1000n
  lastNs = now > lastNs ? now : lastNs + 1n
  return lastNs
}
