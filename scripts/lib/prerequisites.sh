# What scripts/quickstart and scripts/test share: say what is missing, install it when root.

need_node() {
  if ! command -v node >/dev/null; then
    echo "borgfs needs Node.js 20.19 or newer: install it and run this again." >&2
    exit 1
  fi
  if ! node -e 'const [a, b] = process.versions.node.split(".").map(Number); process.exit(a > 20 || (a === 20 && b >= 19) ? 0 : 1)'; then
    echo "borgfs needs Node.js 20.19 or newer; this is $(node --version)." >&2
    exit 1
  fi
}

# need_debian_packages PACKAGE:COMMAND ...: a package is wanted when its command, or its library (NAME.so.N), is not there.
need_debian_packages() {
  local missing=() pair wanted
  for pair in "$@"; do
    wanted="${pair#*:}"
    case "$wanted" in
      *.so.*) PATH="$PATH:/sbin:/usr/sbin" ldconfig -p | grep -qF "$wanted" || missing+=("${pair%%:*}") ;;
      *) command -v "$wanted" >/dev/null || [ -x "/usr/sbin/$wanted" ] || missing+=("${pair%%:*}") ;;
    esac
  done
  [ ${#missing[@]} -eq 0 ] && return
  if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
    echo "Missing: ${missing[*]}. Install them (as root: apt-get install ${missing[*]}) and run this again." >&2
    exit 1
  fi
  echo "== installing ${missing[*]}"
  apt-get -qq update
  DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "${missing[@]}" >/dev/null
}

need_fuse_device() {
  [ -e /dev/fuse ] && return
  if [ "$(id -u)" -eq 0 ]; then
    modprobe fuse 2>/dev/null || true
    [ -e /dev/fuse ] || mknod -m 0666 /dev/fuse c 10 229 2>/dev/null || true
  fi
  if ! (: <>/dev/fuse) 2>/dev/null; then
    echo "/dev/fuse is missing or unusable: a mount needs it. Load the kernel module (modprobe fuse); in a container start it with --device /dev/fuse --cap-add SYS_ADMIN." >&2
    exit 1
  fi
}

# Dependencies when the lock file is newer than the last install, the addon and the compiled code when their sources are.
install_and_build() {
  if [ ! -e node_modules/.package-lock.json ] || [ package-lock.json -nt node_modules/.package-lock.json ]; then
    echo "== installing the npm packages"
    npm ci --no-audit --no-fund --loglevel=error
    touch node_modules/.package-lock.json
  fi
  if [ ! -e build/Release/borgfs.node ] || [ -n "$(find native binding.gyp -newer build/Release/borgfs.node -print -quit)" ]; then
    echo "== building the native part"
    npm run --silent build:native >build.log 2>&1 || { cat build.log >&2; exit 1; }
    rm -f build.log
  fi
  if [ ! -e dist/bundle/main.js ] || [ -n "$(find src tsconfig.json package.json -newer dist/bundle/main.js -type f -print -quit)" ]; then
    echo "== compiling"
    npm run --silent build
    touch dist/bundle/main.js
  fi
}
