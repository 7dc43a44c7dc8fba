/**
 * The real Borg's repository class, driven from a test: one Python process does many steps, so that a few hundred of them take
 * seconds. The interpreter is the one that `borg` itself names in its first line.
 */
import { spawn, spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { createInterface } from 'node:readline'

export type BorgStep =
  | { readonly op: 'check'; readonly path: string; readonly repair?: boolean; readonly maxDuration?: number }
  | { readonly op: 'transaction'; readonly path: string; readonly work: readonly BorgChange[]; readonly end: 'commit' | 'rollback' | 'none' }
  | { readonly op: 'compact'; readonly path: string; readonly threshold: number }
  /** Every object by its id, as hex. */
  | { readonly op: 'dump'; readonly path: string }

export type BorgChange = { readonly put: string; readonly value: string } | { readonly delete: string }

export interface BorgAnswer {
  /** What the step returned. */
  readonly value?: unknown
  /** Class and text of an exception. */
  readonly error?: string
  /** Messages above debug, `LEVEL text`. */
  readonly log: readonly string[]
}

const driver = String.raw`
import sys, json, logging
import borg.logger
borg.logger.configured = True
from borg.repository import Repository
class Gather(logging.Handler):
    def emit(self, record):
        if record.levelno > logging.DEBUG and record.name == 'borg.repository': lines.append('%s %s' % (record.levelname, record.getMessage()))
logging.getLogger().addHandler(Gather())
logging.getLogger().setLevel(logging.INFO)
def run(step):
    with Repository(step['path'], exclusive=True, lock_wait=1) as repository:
        if step['op'] == 'check':
            return repository.check(repair=step.get('repair', False), max_duration=step.get('maxDuration', 0))
        if step['op'] == 'dump':
            return {id.hex(): repository.get(id).hex() for id in repository.list()}
        if step['op'] == 'compact':
            # An empty transaction; the command makes one by storing the manifest again.
            repository.prepare_txn(repository.get_transaction_id())
            return repository.commit(compact=True, threshold=step['threshold'] / 100)
        for change in step['work']:
            if 'put' in change: repository.put(bytes.fromhex(change['put']), bytes.fromhex(change['value']))
            else: repository.delete(bytes.fromhex(change['delete']))
        if step['end'] == 'rollback': repository.rollback()
        elif step['end'] == 'commit': repository.commit(compact=False)
for line in sys.stdin:
    step = json.loads(line)
    lines = []
    try: answer = {'value': run(step), 'log': lines}
    except Exception as e: answer = {'error': '%s: %s' % (type(e).__qualname__, e), 'log': lines}
    print(json.dumps(answer), flush=True)
`

function interpreter(): string | undefined {
  const found = spawnSync('sh', ['-c', 'command -v borg']).stdout.toString().trim()
  if (found === '') return undefined
  const first = /^#!\s*(\S+)/.exec(readFileSync(found).toString('latin1', 0, 200))?.[1]
  return first !== undefined && spawnSync(first, ['-c', 'import borg.repository']).status === 0 ? first : undefined
}

/** The Python that has the real Borg's modules; undefined where Borg is missing, or is one file without a Python of its own. */
export const borgPython = interpreter()

export const haveBorgRepository = borgPython !== undefined

export class BorgRepositoryProcess {
  readonly #child = spawn(borgPython!, ['-c', driver], { stdio: ['pipe', 'pipe', 'pipe'] })
  readonly #answers = createInterface(this.#child.stdout)[Symbol.asyncIterator]()
  #errors = ''

  constructor() {
    this.#child.stderr.on('data', (data: Buffer) => (this.#errors += data.toString()))
  }

  /** One at a time. */
  async step(step: BorgStep): Promise<BorgAnswer> {
    this.#child.stdin.write(`${JSON.stringify(step)}\n`)
    const { value, done } = await this.#answers.next()
    if (done) throw new Error(`Borg's repository ended: ${this.#errors.slice(-2000)}`)
    return JSON.parse(value) as BorgAnswer
  }

  close(): void {
    this.#child.kill('SIGKILL')
  }
}
