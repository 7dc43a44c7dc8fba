import test from 'ava'
import { formatSize } from '../../src/engine/size-text.js'

test('sizes are rounded as Python rounds them, in the middle to the even digit', t => {
  const said = [815_625, -815_625, 815_125, 815_375, 815_875, 1125, 2625, 1_000_625, 815_624, 815_626, 999_995, 999_994, 4076].map(bytes => formatSize(bytes))
  t.deepEqual(said, ['815.62 kB', '-815.62 kB', '815.12 kB', '815.38 kB', '815.88 kB', '1.12 kB', '2.62 kB', '1.00 MB', '815.62 kB', '815.63 kB', '1.00 MB', '999.99 kB', '4.08 kB'])
  t.deepEqual([1152, 2_621_440 + 131_072, 3 * 2 ** 30 + 2 ** 27].map(bytes => formatSize(bytes, { iec: true })), ['1.12 KiB', '2.62 MiB', '3.12 GiB'])
})
