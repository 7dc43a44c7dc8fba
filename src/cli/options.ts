/**
 * Every option of every command of Borg 1.2.4, as data (its option parser is the source). The parser in args.ts is written once
 * for all of them; commands that do not exist here yet have their tables all the same.
 */

export interface OptionSpec {
  readonly flags: readonly string[]
  /** append: repeatable; count: repeatable, counted; optional-value: the value may be missing. */
  readonly kind: 'flag' | 'value' | 'append' | 'count' | 'optional-value'
  readonly metavar?: string
  readonly type?: string
  readonly default?: string | number
  readonly choices?: readonly string[]
  readonly required?: boolean
  /** A second use is refused. */
  readonly once?: boolean
  /** Value of an optional-value option given without one. */
  readonly without_value?: string
  /** Of a flag: the name of the one that it is an old name of, which is set instead. */
  readonly means?: string
}

export interface PositionalSpec {
  readonly name: string
  /** 1, `?` (optional), `*` or `+`, or the rest of the line. */
  readonly nargs: number | string
  readonly metavar?: string
  readonly type?: string
}

export interface CommandSpec {
  readonly positionals?: readonly PositionalSpec[]
  readonly options?: readonly OptionSpec[]
  readonly exclusive?: readonly (readonly string[])[]
}

export const commonOptions: readonly OptionSpec[] = [
  {"flags": ["-h", "--help"], "kind": "flag"},
  {"flags": ["--critical"], "kind": "flag"},
  {"flags": ["--error"], "kind": "flag"},
  {"flags": ["--warning"], "kind": "flag"},
  {"flags": ["--info", "-v", "--verbose"], "kind": "flag"},
  {"flags": ["--debug"], "kind": "flag"},
  {"flags": ["--debug-topic"], "kind": "append", "metavar": "TOPIC"},
  {"flags": ["-p", "--progress"], "kind": "flag"},
  {"flags": ["--iec"], "kind": "flag"},
  {"flags": ["--log-json"], "kind": "flag"},
  {"flags": ["--lock-wait"], "kind": "value", "metavar": "SECONDS", "type": "int", "default": 1},
  {"flags": ["--bypass-lock"], "kind": "flag"},
  {"flags": ["--show-version"], "kind": "flag"},
  {"flags": ["--show-rc"], "kind": "flag"},
  {"flags": ["--umask"], "kind": "value", "metavar": "M", "type": "octal", "default": "0077"},
  {"flags": ["--remote-path"], "kind": "value", "metavar": "PATH"},
  {"flags": ["--remote-ratelimit"], "kind": "value", "metavar": "RATE", "type": "int"},
  {"flags": ["--upload-ratelimit"], "kind": "value", "metavar": "RATE", "type": "int"},
  {"flags": ["--remote-buffer"], "kind": "value", "metavar": "UPLOAD_BUFFER", "type": "int"},
  {"flags": ["--upload-buffer"], "kind": "value", "metavar": "UPLOAD_BUFFER", "type": "int"},
  {"flags": ["--consider-part-files"], "kind": "flag"},
  {"flags": ["--debug-profile"], "kind": "value", "metavar": "FILE"},
  {"flags": ["--rsh"], "kind": "value", "metavar": "RSH"},
]

/** What to leave out of an archive, in the order of the command line. */
const exclusions: readonly OptionSpec[] = [
  {"flags": ["-e", "--exclude"], "kind": "append", "metavar": "PATTERN", "type": "pattern"},
  {"flags": ["--exclude-from"], "kind": "append", "metavar": "EXCLUDEFILE"},
  {"flags": ["--pattern"], "kind": "append", "metavar": "PATTERN"},
  {"flags": ["--patterns-from"], "kind": "append", "metavar": "PATTERNFILE"},
]

/** Which archives of a repository are meant. */
const archiveFilters: readonly OptionSpec[] = [
  {"flags": ["-P", "--prefix"], "kind": "value", "once": true, "metavar": "PREFIX", "type": "text-with-placeholders"},
  {"flags": ["-a", "--glob-archives"], "kind": "value", "once": true, "metavar": "GLOB", "type": "text-with-placeholders"},
  {"flags": ["--sort-by"], "kind": "value", "metavar": "KEYS", "type": "sort-keys", "default": "timestamp"},
  {"flags": ["--first"], "kind": "value", "metavar": "N", "type": "positive-int"},
  {"flags": ["--last"], "kind": "value", "metavar": "N", "type": "positive-int"},
]

const repository: PositionalSpec = {"name": "location", "nargs": 1, "metavar": "REPOSITORY", "type": "location"}
const repositoryOrDefault: PositionalSpec = {"name": "location", "nargs": "?", "metavar": "REPOSITORY", "type": "location"}
const repositoryOrArchive: PositionalSpec = {"name": "location", "nargs": "?", "metavar": "REPOSITORY_OR_ARCHIVE", "type": "location"}
const archive: PositionalSpec = {"name": "location", "nargs": 1, "metavar": "ARCHIVE", "type": "location"}

export const commandSpecs: Readonly<Record<string, CommandSpec>> = {
  "benchmark crud": {
    positionals: [
      repository,
      {"name": "path", "nargs": 1, "metavar": "PATH"},
    ],
  },
  "break-lock": {
    positionals: [repositoryOrDefault],
  },
  "check": {
    positionals: [repositoryOrArchive],
    options: [
      {"flags": ["--repository-only"], "kind": "flag"},
      {"flags": ["--archives-only"], "kind": "flag"},
      {"flags": ["--verify-data"], "kind": "flag"},
      {"flags": ["--repair"], "kind": "flag"},
      {"flags": ["--save-space"], "kind": "flag"},
      {"flags": ["--max-duration"], "kind": "value", "metavar": "SECONDS", "type": "int"},
      ...archiveFilters,
    ],
    "exclusive": [["--prefix", "--glob-archives"], ["--first", "--last"]],
  },
  "compact": {
    positionals: [repositoryOrDefault],
    options: [
      {"flags": ["--cleanup-commits"], "kind": "flag"},
      {"flags": ["--threshold"], "kind": "value", "metavar": "PERCENT", "type": "int", "default": 10},
    ],
  },
  "config": {
    positionals: [
      repositoryOrDefault,
      {"name": "name", "nargs": "?", "metavar": "NAME"},
      {"name": "value", "nargs": "?", "metavar": "VALUE"},
    ],
    options: [
      {"flags": ["-c", "--cache"], "kind": "flag"},
      {"flags": ["-d", "--delete"], "kind": "flag"},
      {"flags": ["-l", "--list"], "kind": "flag"},
    ],
    "exclusive": [["--delete", "--list"]],
  },
  "create": {
    positionals: [
      archive,
      {"name": "paths", "nargs": "*", "metavar": "PATH", "type": "text"},
    ],
    options: [
      {"flags": ["-n", "--dry-run"], "kind": "flag"},
      {"flags": ["-s", "--stats"], "kind": "flag"},
      {"flags": ["--list"], "kind": "flag"},
      {"flags": ["--filter"], "kind": "value", "once": true, "metavar": "STATUSCHARS"},
      {"flags": ["--json"], "kind": "flag"},
      {"flags": ["--no-cache-sync"], "kind": "flag"},
      {"flags": ["--stdin-name"], "kind": "value", "metavar": "NAME", "default": "stdin"},
      {"flags": ["--stdin-user"], "kind": "value", "metavar": "USER", "default": "root"},
      {"flags": ["--stdin-group"], "kind": "value", "metavar": "GROUP", "default": "root"},
      {"flags": ["--stdin-mode"], "kind": "value", "metavar": "M", "type": "octal", "default": "0660"},
      {"flags": ["--content-from-command"], "kind": "flag"},
      {"flags": ["--paths-from-stdin"], "kind": "flag"},
      {"flags": ["--paths-from-command"], "kind": "flag"},
      {"flags": ["--paths-delimiter"], "kind": "value", "metavar": "DELIM"},
      ...exclusions,
      {"flags": ["--exclude-caches"], "kind": "flag"},
      {"flags": ["--exclude-if-present"], "kind": "append", "metavar": "NAME", "type": "text"},
      {"flags": ["--keep-exclude-tags"], "kind": "flag"},
      {"flags": ["--exclude-nodump"], "kind": "flag"},
      {"flags": ["-x", "--one-file-system"], "kind": "flag"},
      {"flags": ["--numeric-owner"], "kind": "flag", "means": "numeric-ids"},
      {"flags": ["--numeric-ids"], "kind": "flag"},
      {"flags": ["--noatime"], "kind": "flag"},
      {"flags": ["--atime"], "kind": "flag"},
      {"flags": ["--noctime"], "kind": "flag"},
      {"flags": ["--nobirthtime"], "kind": "flag"},
      {"flags": ["--nobsdflags"], "kind": "flag", "means": "noflags"},
      {"flags": ["--noflags"], "kind": "flag"},
      {"flags": ["--noacls"], "kind": "flag"},
      {"flags": ["--noxattrs"], "kind": "flag"},
      {"flags": ["--sparse"], "kind": "flag"},
      {"flags": ["--files-cache"], "kind": "value", "once": true, "metavar": "MODE", "type": "files-cache-mode", "default": "ctime,size,inode"},
      {"flags": ["--read-special"], "kind": "flag"},
      {"flags": ["--comment"], "kind": "value", "metavar": "COMMENT", "type": "text-with-placeholders"},
      {"flags": ["--timestamp"], "kind": "value", "metavar": "TIMESTAMP", "type": "timestamp"},
      {"flags": ["-c", "--checkpoint-interval"], "kind": "value", "metavar": "SECONDS", "type": "int", "default": 1800},
      {"flags": ["--chunker-params"], "kind": "value", "once": true, "metavar": "PARAMS", "type": "chunker-params", "default": "buzhash,19,23,21,4095"},
      {"flags": ["-C", "--compression"], "kind": "value", "metavar": "COMPRESSION", "type": "compression", "default": "lz4"},
    ],
  },
  "debug info": {
    positionals: [
    ],
  },
  "debug dump-archive-items": {
    positionals: [archive],
  },
  "debug dump-archive": {
    positionals: [
      archive,
      {"name": "path", "nargs": 1, "metavar": "PATH", "type": "text"},
    ],
  },
  "debug dump-manifest": {
    positionals: [
      repository,
      {"name": "path", "nargs": 1, "metavar": "PATH", "type": "text"},
    ],
  },
  "debug dump-repo-objs": {
    positionals: [repository],
    options: [
      {"flags": ["--ghost"], "kind": "flag"},
      {"flags": ["--segment"], "kind": "value", "metavar": "SEG", "type": "positive-int"},
      {"flags": ["--offset"], "kind": "value", "metavar": "OFFS", "type": "positive-int"},
    ],
  },
  "debug search-repo-objs": {
    positionals: [
      repository,
      {"name": "wanted", "nargs": 1, "metavar": "WANTED", "type": "text"},
    ],
  },
  "debug id-hash": {
    positionals: [
      repository,
      {"name": "path", "nargs": 1, "metavar": "PATH", "type": "text"},
    ],
  },
  "debug get-obj": {
    positionals: [
      repository,
      {"name": "id", "nargs": 1, "metavar": "ID", "type": "text"},
      {"name": "path", "nargs": 1, "metavar": "PATH", "type": "text"},
    ],
  },
  "debug put-obj": {
    positionals: [
      repository,
      {"name": "id", "nargs": 1, "metavar": "ID", "type": "text"},
      {"name": "path", "nargs": 1, "metavar": "PATH", "type": "text"},
    ],
  },
  "debug delete-obj": {
    positionals: [
      repository,
      {"name": "ids", "nargs": "+", "metavar": "IDs", "type": "text"},
    ],
  },
  "debug refcount-obj": {
    positionals: [
      repository,
      {"name": "ids", "nargs": "+", "metavar": "IDs", "type": "text"},
    ],
  },
  "debug dump-hints": {
    positionals: [
      repository,
      {"name": "path", "nargs": 1, "metavar": "PATH", "type": "text"},
    ],
  },
  "debug convert-profile": {
    positionals: [
      {"name": "input", "nargs": 1, "metavar": "INPUT", "type": "file"},
      {"name": "output", "nargs": 1, "metavar": "OUTPUT", "type": "file"},
    ],
  },
  "delete": {
    positionals: [
      repositoryOrArchive,
      {"name": "archives", "nargs": "*", "metavar": "ARCHIVE"},
    ],
    options: [
      {"flags": ["-n", "--dry-run"], "kind": "flag"},
      {"flags": ["--list"], "kind": "flag"},
      {"flags": ["-s", "--stats"], "kind": "flag"},
      {"flags": ["--cache-only"], "kind": "flag"},
      {"flags": ["--force"], "kind": "count"},
      {"flags": ["--keep-security-info"], "kind": "flag"},
      {"flags": ["--save-space"], "kind": "flag"},
      {"flags": ["-c", "--checkpoint-interval"], "kind": "value", "metavar": "SECONDS", "type": "int", "default": 1800},
      ...archiveFilters,
    ],
    "exclusive": [["--prefix", "--glob-archives"], ["--first", "--last"]],
  },
  "diff": {
    positionals: [
      {"name": "location", "nargs": 1, "metavar": "REPO::ARCHIVE1", "type": "location"},
      {"name": "archive2", "nargs": 1, "metavar": "ARCHIVE2", "type": "archive-name"},
      {"name": "paths", "nargs": "*", "metavar": "PATH", "type": "text"},
    ],
    options: [
      {"flags": ["--numeric-owner"], "kind": "flag", "means": "numeric-ids"},
      {"flags": ["--numeric-ids"], "kind": "flag"},
      {"flags": ["--same-chunker-params"], "kind": "flag"},
      {"flags": ["--sort"], "kind": "flag"},
      {"flags": ["--content-only"], "kind": "flag"},
      {"flags": ["--json-lines"], "kind": "flag"},
      ...exclusions,
    ],
  },
  "export-tar": {
    positionals: [
      archive,
      {"name": "tarfile", "nargs": 1, "metavar": "FILE"},
      {"name": "paths", "nargs": "*", "metavar": "PATH", "type": "text"},
    ],
    options: [
      {"flags": ["--tar-filter"], "kind": "value", "default": "auto"},
      {"flags": ["--list"], "kind": "flag"},
      ...exclusions,
      {"flags": ["--strip-components"], "kind": "value", "metavar": "NUMBER", "type": "int"},
    ],
  },
  "extract": {
    positionals: [
      archive,
      {"name": "paths", "nargs": "*", "metavar": "PATH", "type": "text"},
    ],
    options: [
      {"flags": ["--list"], "kind": "flag"},
      {"flags": ["-n", "--dry-run"], "kind": "flag"},
      {"flags": ["--numeric-owner"], "kind": "flag", "means": "numeric-ids"},
      {"flags": ["--numeric-ids"], "kind": "flag"},
      {"flags": ["--nobsdflags"], "kind": "flag", "means": "noflags"},
      {"flags": ["--noflags"], "kind": "flag"},
      {"flags": ["--noacls"], "kind": "flag"},
      {"flags": ["--noxattrs"], "kind": "flag"},
      {"flags": ["--stdout"], "kind": "flag"},
      {"flags": ["--sparse"], "kind": "flag"},
      ...exclusions,
      {"flags": ["--strip-components"], "kind": "value", "metavar": "NUMBER", "type": "int"},
    ],
  },
  "help": {
    positionals: [
      {"name": "topic", "nargs": "?", "metavar": "TOPIC", "type": "text"},
    ],
    options: [
      {"flags": ["--epilog-only"], "kind": "flag"},
      {"flags": ["--usage-only"], "kind": "flag"},
    ],
  },
  "info": {
    positionals: [repositoryOrArchive],
    options: [
      {"flags": ["--json"], "kind": "flag"},
      ...archiveFilters,
    ],
    "exclusive": [["--prefix", "--glob-archives"], ["--first", "--last"]],
  },
  "init": {
    positionals: [repositoryOrDefault],
    options: [
      {"flags": ["-e", "--encryption"], "kind": "value", "metavar": "MODE", "choices": ["none", "keyfile", "repokey", "authenticated", "keyfile-blake2", "repokey-blake2", "authenticated-blake2"], "required": true},
      {"flags": ["--append-only"], "kind": "flag"},
      {"flags": ["--storage-quota"], "kind": "value", "metavar": "QUOTA", "type": "size"},
      {"flags": ["--make-parent-dirs"], "kind": "flag"},
    ],
  },
  "key export": {
    positionals: [
      repositoryOrDefault,
      {"name": "path", "nargs": "?", "metavar": "PATH", "type": "text"},
    ],
    options: [
      {"flags": ["--paper"], "kind": "flag"},
      {"flags": ["--qr-html"], "kind": "flag"},
    ],
  },
  "key import": {
    positionals: [
      repositoryOrDefault,
      {"name": "path", "nargs": "?", "metavar": "PATH", "type": "text"},
    ],
    options: [
      {"flags": ["--paper"], "kind": "flag"},
    ],
  },
  "key change-passphrase": {
    positionals: [repositoryOrDefault],
  },
  "key migrate-to-repokey": {
    positionals: [repositoryOrDefault],
  },
  "list": {
    positionals: [
      repositoryOrArchive,
      {"name": "paths", "nargs": "*", "metavar": "PATH", "type": "text"},
    ],
    options: [
      {"flags": ["--consider-checkpoints"], "kind": "flag"},
      {"flags": ["--short"], "kind": "flag"},
      {"flags": ["--format"], "kind": "value", "metavar": "FORMAT"},
      {"flags": ["--json"], "kind": "flag"},
      {"flags": ["--json-lines"], "kind": "flag"},
      ...archiveFilters,
      ...exclusions,
    ],
    "exclusive": [["--prefix", "--glob-archives"], ["--first", "--last"]],
  },
  "mount": {
    positionals: [
      {"name": "location", "nargs": 1, "metavar": "REPOSITORY_OR_ARCHIVE", "type": "location"},
      {"name": "mountpoint", "nargs": 1, "metavar": "MOUNTPOINT", "type": "text"},
      {"name": "paths", "nargs": "*", "metavar": "PATH", "type": "text"},
    ],
    options: [
      {"flags": ["--consider-checkpoints"], "kind": "flag"},
      {"flags": ["-f", "--foreground"], "kind": "flag"},
      {"flags": ["-o"], "kind": "value", "once": true, "type": "text"},
      {"flags": ["--numeric-owner"], "kind": "flag", "means": "numeric-ids"},
      {"flags": ["--numeric-ids"], "kind": "flag"},
      ...archiveFilters,
      ...exclusions,
      {"flags": ["--strip-components"], "kind": "value", "metavar": "NUMBER", "type": "int"},
    ],
    "exclusive": [["--prefix", "--glob-archives"], ["--first", "--last"]],
  },
  "prune": {
    positionals: [repositoryOrDefault],
    options: [
      {"flags": ["-n", "--dry-run"], "kind": "flag"},
      {"flags": ["--force"], "kind": "flag"},
      {"flags": ["-s", "--stats"], "kind": "flag"},
      {"flags": ["--list"], "kind": "flag"},
      {"flags": ["--keep-within"], "kind": "value", "metavar": "INTERVAL", "type": "interval"},
      {"flags": ["--keep-last", "--keep-secondly"], "kind": "value", "type": "int"},
      {"flags": ["--keep-minutely"], "kind": "value", "type": "int"},
      {"flags": ["-H", "--keep-hourly"], "kind": "value", "type": "int"},
      {"flags": ["-d", "--keep-daily"], "kind": "value", "type": "int"},
      {"flags": ["-w", "--keep-weekly"], "kind": "value", "type": "int"},
      {"flags": ["-m", "--keep-monthly"], "kind": "value", "type": "int"},
      {"flags": ["-y", "--keep-yearly"], "kind": "value", "type": "int"},
      {"flags": ["--save-space"], "kind": "flag"},
      {"flags": ["-c", "--checkpoint-interval"], "kind": "value", "metavar": "SECONDS", "type": "int", "default": 1800},
      {"flags": ["-P", "--prefix"], "kind": "value", "once": true, "metavar": "PREFIX", "type": "text-with-placeholders"},
      {"flags": ["-a", "--glob-archives"], "kind": "value", "once": true, "metavar": "GLOB", "type": "text-with-placeholders"},
    ],
    "exclusive": [["--prefix", "--glob-archives"]],
  },
  "recreate": {
    positionals: [
      repositoryOrArchive,
      {"name": "paths", "nargs": "*", "metavar": "PATH", "type": "text"},
    ],
    options: [
      {"flags": ["--list"], "kind": "flag"},
      {"flags": ["--filter"], "kind": "value", "once": true, "metavar": "STATUSCHARS"},
      {"flags": ["-n", "--dry-run"], "kind": "flag"},
      {"flags": ["-s", "--stats"], "kind": "flag"},
      ...exclusions,
      {"flags": ["--exclude-caches"], "kind": "flag"},
      {"flags": ["--exclude-if-present"], "kind": "append", "metavar": "NAME", "type": "text"},
      {"flags": ["--keep-exclude-tags"], "kind": "flag"},
      {"flags": ["--target"], "kind": "value", "metavar": "TARGET", "type": "archive-name"},
      {"flags": ["-c", "--checkpoint-interval"], "kind": "value", "metavar": "SECONDS", "type": "int", "default": 1800},
      {"flags": ["--comment"], "kind": "value", "metavar": "COMMENT", "type": "text-with-placeholders"},
      {"flags": ["--timestamp"], "kind": "value", "metavar": "TIMESTAMP", "type": "timestamp"},
      {"flags": ["-C", "--compression"], "kind": "value", "metavar": "COMPRESSION", "type": "compression", "default": "lz4"},
      {"flags": ["--recompress"], "kind": "optional-value", "metavar": "MODE", "default": "never", "choices": ["never", "if-different", "always"], "without_value": "if-different"},
      {"flags": ["--chunker-params"], "kind": "value", "once": true, "metavar": "PARAMS", "type": "chunker-params"},
    ],
  },
  "rename": {
    positionals: [
      archive,
      {"name": "name", "nargs": 1, "metavar": "NEWNAME", "type": "archive-name"},
    ],
  },
  "serve": {
    positionals: [
    ],
    options: [
      {"flags": ["--restrict-to-path"], "kind": "append", "metavar": "PATH"},
      {"flags": ["--restrict-to-repository"], "kind": "append", "metavar": "PATH"},
      {"flags": ["--append-only"], "kind": "flag"},
      {"flags": ["--storage-quota"], "kind": "value", "metavar": "QUOTA", "type": "size"},
    ],
  },
  "umount": {
    positionals: [
      {"name": "mountpoint", "nargs": 1, "metavar": "MOUNTPOINT", "type": "text"},
    ],
  },
  "upgrade": {
    positionals: [repositoryOrDefault],
    options: [
      {"flags": ["-n", "--dry-run"], "kind": "flag"},
      {"flags": ["--inplace"], "kind": "flag"},
      {"flags": ["--force"], "kind": "flag"},
      {"flags": ["--tam"], "kind": "flag"},
      {"flags": ["--disable-tam"], "kind": "flag"},
    ],
  },
  "with-lock": {
    positionals: [
      repository,
      {"name": "command", "nargs": 1, "metavar": "COMMAND"},
      {"name": "args", "nargs": "...", "metavar": "ARGS"},
    ],
  },
  "import-tar": {
    positionals: [
      archive,
      {"name": "tarfile", "nargs": 1, "metavar": "TARFILE"},
    ],
    options: [
      {"flags": ["--tar-filter"], "kind": "value", "once": true, "default": "auto"},
      {"flags": ["-s", "--stats"], "kind": "flag"},
      {"flags": ["--list"], "kind": "flag"},
      {"flags": ["--filter"], "kind": "value", "once": true, "metavar": "STATUSCHARS"},
      {"flags": ["--json"], "kind": "flag"},
      {"flags": ["--ignore-zeros"], "kind": "flag"},
      {"flags": ["--comment"], "kind": "value", "metavar": "COMMENT"},
      {"flags": ["--timestamp"], "kind": "value", "metavar": "TIMESTAMP", "type": "timestamp"},
      {"flags": ["-c", "--checkpoint-interval"], "kind": "value", "metavar": "SECONDS", "type": "int", "default": 1800},
      {"flags": ["--chunker-params"], "kind": "value", "once": true, "metavar": "PARAMS", "type": "chunker-params", "default": "buzhash,19,23,21,4095"},
      {"flags": ["-C", "--compression"], "kind": "value", "metavar": "COMPRESSION", "type": "compression", "default": "lz4"},
    ],
  },
}
