/** The time that changes of staged files get. */
let originMs = performance.timeOrigin
let lastNs = 0n

/** By less the two clocks of this process may differ for want of precision, or because it stood still in between. */
const maxDriftMs = 50
/** By less time does not go back, but stands still until it is reached again. */
const maxStandstillMs = 1000

/** Somebody else told the time until then. */
export function toldUntil(ns: bigint): void {
  if (ns > lastNs) lastNs = ns
}

/** Now in ns, never twice the same: tools take equal times for "unchanged". As the host has it, also when its clock was set or it slept. */
export function nowNs(): bigint {
  const elapsedMs = performance.now()
  const driftMs = Date.now() - (originMs + elapsedMs)
  if (Math.abs(driftMs) > maxDriftMs) {
    originMs += driftMs
    if (driftMs < -maxStandstillMs) lastNs = 0n
  }
  const now = BigInt(Math.floor((originMs + elapsedMs) * 1000)) * 1000n
  lastNs = now > lastNs ? now : lastNs + 1n
  return lastNs
}
