#!/usr/bin/env python3
"""How time and memory grow: one table of seconds and peak RSS (MB) for docs/scaling.md.

measure.py --work DIR [--chunks 10000,100000,1000000,5000000] [--files 1000,10000,100000,1000000] [--archives 5000]
           [--runs 3] [--tool borg=/usr/bin/borg] [--tool borgfs=PATH] [--keep]

Repositories are made by generate.mjs (needs `npm run build`), trees of one-line files by this script, one after the other, and removed
again. Both tools work on the same repository with the same caches, A B A B. Figures are medians of time and the largest RSS of
a process; for a mount, which Debian's borg only does with python3-pyfuse3 or python3-llfuse, that of the serving process.
"""
import argparse, os, shutil, statistics, subprocess, sys, time
here = os.path.dirname(os.path.abspath(__file__))
root = os.path.join(here, '..', '..')

def run(cmd, env, cwd=None):
    t = time.perf_counter()
    p = subprocess.Popen(cmd, env=env, cwd=cwd, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)
    err = p.stderr.read()
    _, status, usage = os.wait4(p.pid, 0)
    p.returncode = os.waitstatus_to_exitcode(status)
    if p.returncode not in (0, 1): raise RuntimeError('%s: %s' % (' '.join(cmd), err.decode(errors='replace')[-300:]))
    return time.perf_counter() - t, usage.ru_maxrss / 1024

def mount(cmd, env, repo, point, inside):
    before = {p for p in os.listdir('/proc') if p.isdigit()}
    t = time.perf_counter()
    run(cmd + ['mount', repo, point], env)
    if not os.path.ismount(point): raise RuntimeError('%s: nothing was mounted' % cmd)
    try:
        os.listdir(os.path.join(point, inside))
        wall = time.perf_counter() - t
        rss = 0
        for p in os.listdir('/proc'):
            if not p.isdigit() or p in before: continue
            try:
                if point not in open('/proc/%s/cmdline' % p).read(): continue
                rss = max([rss] + [int(l.split()[1]) / 1024 for l in open('/proc/%s/status' % p) if l.startswith('VmHWM')])
            except OSError: pass
        return wall, rss
    finally:
        run(cmd + ['umount', point], env)
        time.sleep(0.5)

def tree(path, count):
    for i in range(count):
        if i % 1000 == 0:
            folder = os.path.join(path, 'd%04d' % (i // 1000)); os.makedirs(folder, exist_ok=True)
        fd = os.open(os.path.join(folder, 'f%07d' % i), os.O_WRONLY | os.O_CREAT, 0o644)
        os.write(fd, b'%d\n' % i); os.close(fd)

class Table:
    def __init__(self, a): self.a, self.n = a, int(time.time())
    def row(self, size, case, work):
        """work(cmd, name of this run) for each tool in turn."""
        found = {}
        for i in range(self.a.runs):
            for name, cmd in self.a.tools:
                self.n += 1
                # A command that one of the tools does not have leaves its cell empty, and the rest goes on.
                try: found.setdefault(name, []).append(work(cmd, '%s-%d' % (name, self.n)))
                except (RuntimeError, OSError) as e: print('-- %s' % e, file=sys.stderr)
        cells = ['%7.2f s %6d MB' % (statistics.median(w for w, _ in r), max(m for _, m in r)) if r else '%20s' % '-' for r in (found.get(n) for n, _ in self.a.tools)]
        print('%-18s %-24s %s' % (size, case, '  '.join(cells)), flush=True)

def main():
    p = argparse.ArgumentParser()
    numbers = lambda s: [int(n) for n in s.split(',') if n]
    p.add_argument('--work', required=True); p.add_argument('--runs', type=int, default=3); p.add_argument('--keep', action='store_true')
    p.add_argument('--chunks', type=numbers, default=[10000, 100000, 1000000, 5000000]); p.add_argument('--files', type=numbers, default=[1000, 10000, 100000, 1000000])
    p.add_argument('--archives', type=numbers, default=[5000]); p.add_argument('--tool', action='append')
    a = p.parse_args()
    a.tools = [(n, c.split()) for n, c in (t.split('=', 1) for t in a.tool or ['borg=/usr/bin/borg', 'borgfs=%s/bin/borgfs' % root])]
    work = os.path.abspath(a.work); os.makedirs(work, exist_ok=True)
    env = dict(os.environ, BORG_BASE_DIR=work + '/home', BORG_PASSPHRASE='scale', BORG_RELOCATED_REPO_ACCESS_IS_OK='yes', BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK='yes')
    out, point, one = (os.path.join(work, n) for n in ('out', 'mnt', 'one'))
    for d in (point, one): os.makedirs(d, exist_ok=True)
    open(one + '/file', 'w').write('one\n')
    table = Table(a)
    print('%-18s %-24s %s' % ('', '', '  '.join('%20s' % n for n, _ in a.tools)))

    def generated(name, *options):
        repo = os.path.join(work, name)
        if not os.path.exists(repo): subprocess.run(['node', os.path.join(here, 'generate.mjs'), repo, *map(str, options)], env=env, check=True, stdout=subprocess.DEVNULL)
        return repo
    def extract(cmd, repo, path):
        shutil.rmtree(out, ignore_errors=True); os.makedirs(out)
        return run(cmd + ['extract', repo + '::base', path], env, cwd=out)
    def gone(path):
        if not a.keep: shutil.rmtree(path, ignore_errors=True)

    for n in a.chunks:
        repo, size = generated('chunks-%d' % n, '--chunks', n), '%d chunks' % n
        # An archive of its own to look into: how long one of all chunks takes says nothing of the index.
        if b'small' not in subprocess.run(a.tools[0][1] + ['list', '--short', repo], env=env, capture_output=True).stdout.split(): run(a.tools[0][1] + ['create', repo + '::small', one], env)
        stored = one.lstrip('/') + '/file'
        table.row(size, 'list', lambda c, _: run(c + ['list', repo], env))
        table.row(size, 'list an archive', lambda c, _: run(c + ['list', repo + '::small'], env))
        def extract_small(c, _):
            shutil.rmtree(out, ignore_errors=True); os.makedirs(out)
            return run(c + ['extract', repo + '::small', stored], env, cwd=out)
        table.row(size, 'extract one file', extract_small)
        table.row(size, 'mount, ls', lambda c, _: mount(c, env, repo, point, ''))
        table.row(size, 'create one file', lambda c, name: run(c + ['create', repo + '::' + name, one], env))
        table.row(size, 'list all references', lambda c, _: run(c + ['list', repo + '::base'], env))
        gone(repo)
    for n in a.files:
        repo, size = generated('files-%d' % n, '--chunks', n, '--files', n), '%d files' % n
        table.row(size, 'list', lambda c, _: run(c + ['list', repo + '::base'], env))
        table.row(size, 'extract one file', lambda c, _: extract(c, repo, 'dir0000/file0000007'))
        table.row(size, 'mount, ls the archive', lambda c, _: mount(c, env, repo, point, 'base'))
        gone(repo)
        folder = os.path.join(work, 'tree-%d' % n)
        if not os.path.exists(folder): tree(folder, n)
        for phase in ('create', 'create unchanged'):
            def create(c, name):
                mine = os.path.join(work, 'repo-%d-%s' % (n, name.split('-')[0]))
                if phase == 'create': shutil.rmtree(mine, ignore_errors=True)
                if not os.path.exists(mine): run(c + ['init', '-e', 'repokey', mine], env)
                return run(c + ['create', mine + '::' + name, folder], env)
            table.row(size, phase, create)
        for name, _ in a.tools: gone(os.path.join(work, 'repo-%d-%s' % (n, name)))
        gone(folder)
    for n in a.archives:
        repo, size = generated('archives-%d' % n, '--chunks', 1000, '--archives', n), '%d archives' % n
        table.row(size, 'list', lambda c, _: run(c + ['list', repo], env))
        table.row(size, 'info', lambda c, _: run(c + ['info', repo], env))
        table.row(size, 'prune --dry-run', lambda c, _: run(c + ['prune', '--dry-run', '--keep-daily', '7', '--keep-monthly', '6', repo], env))
        gone(repo)
    if not a.keep:
        for d in (out, point, one, work + '/home'): shutil.rmtree(d, ignore_errors=True)

if __name__ == '__main__':
    main()
