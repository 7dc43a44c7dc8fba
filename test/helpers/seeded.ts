/** Choices that are the same in every run of a seed. */

/** A function that gives integers from 0 to below its argument. */
export function randomOf(seed: number): (below: number) => number {
  let state = seed >>> 0
  return below => {
    // mulberry32
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) % below
  }
}
