import test from 'ava'
import { IdlePhases } from '../../src/fs/idle-phases.js'

/** A clock that stands until it is told. */
function make() {
  const state = { rests: 0, busy: false, running: false, closed: false }
  let over: (() => void) | undefined
  const idle = new IdlePhases({
    afterMs: 10_000,
    busy: () => state.busy,
    rest: () => void state.rests++,
    timer(callback, ms) {
      state.running = ms === 10_000
      over = callback
      return { refresh: () => void (state.running = true), close: () => void (state.closed = true) }
    },
  })
  const pass = (): void => {
    if (!state.running) return
    state.running = false
    over!()
  }
  return { state, idle, pass }
}

test('a mount that was never at work does not rest, one that was rests once', t => {
  const { state, idle, pass } = make()
  pass()
  t.is(state.rests, 0)
  idle.begin()
  pass()
  t.is(state.rests, 0)
  idle.end()
  t.is(state.rests, 0)
  pass()
  pass()
  t.is(state.rests, 1)
  idle.begin()
  idle.end()
  pass()
  t.is(state.rests, 2)
})

test('while anything is under way the time does not pass, and it begins anew at the end of the last', t => {
  const { state, idle, pass } = make()
  idle.begin()
  idle.begin()
  idle.end()
  t.false(state.running)
  idle.end()
  t.true(state.running)
  idle.begin()
  pass()
  t.is(state.rests, 0)
  t.false(state.running)
  idle.end()
  pass()
  t.is(state.rests, 1)
})

test('work that nobody asked for puts it off', t => {
  const { state, idle, pass } = make()
  idle.begin()
  idle.end()
  state.busy = true
  pass()
  pass()
  t.is(state.rests, 0)
  state.busy = false
  pass()
  t.is(state.rests, 1)
})

test('nothing is given back of a mount that was closed', t => {
  const { state, idle, pass } = make()
  idle.begin()
  idle.end()
  idle.close()
  t.true(state.closed)
  pass()
  t.is(state.rests, 0)
  idle.begin()
  idle.end()
  t.false(state.running)
})
