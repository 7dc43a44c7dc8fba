import test from 'ava'
import { newestOf } from '../../../src/fs/incoming/series.js'
import { seriesOf } from '../../../src/fs/status/archive-views.js'

for (const [name, series] of [
  ['laptop-2026-05-01T10:00:00', 'laptop'], ['laptop-2026-05-01T10:00:00.1', 'laptop'], ['db_20260501', 'db'], ['host-home-2026-05-01', 'host-home'], ['web 2026-05-01', 'web'],
  ['plain', 'plain'], ['2026-05-01', '2026-05-01'], ['v-1234567890', 'v'], ['phone-555123456789', 'phone-555123456789'],
] as const) {
  test(`${name} is of the series ${series}`, t => t.is(seriesOf(name), series))
}

test('the newest of a series is not that of a longer name, unless there is nothing else', t => {
  const archives = ['web-2026-01-01', 'web-db-2026-03-03', 'web-2026-02-02', 'web', 'database-nightly'].map((name, index) => ({ name: Buffer.from(name), timeNs: [1n, 9n, 5n, 3n, 4n][index]! }))
  const newest = (series: string): string | undefined => newestOf(archives, series)?.name.toString()
  t.is(newest('web'), 'web-2026-02-02')
  t.is(newest('web-db'), 'web-db-2026-03-03')
  t.is(newest('database'), 'database-nightly')
  t.is(newest('we'), undefined)
})
