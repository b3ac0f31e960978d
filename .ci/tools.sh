#!/usr/bin/env bash
# Brings what the tests need beside Go: a real Prometheus with promtool and a real Redis, unpacked into .tools/ and neither
# installed nor started, a C compiler for the race detector, curl, and Chromium for the pages (not with
# WXPROXY_NO_BROWSER=1). It may be run again at any time: what is there stays.
# With the argument "node" it brings Node.js and npm instead, which nothing but the SDKs of `make conformance` needs.
# WXPROXY_TOOLS names another folder than .tools; the tests read it too.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
tools=${WXPROXY_TOOLS:-$PWD/.tools}

fail() { echo "tools.sh: $*" >&2; exit 1; }

# apt OPERATION PACKAGE…: with the lists that are there, and once more with fresh ones.
apt() {
  apt-get -qq -o APT::Sandbox::User=root "$@" >"$log" 2>&1 && return
  apt-get -qq update >>"$log" 2>&1 || true
  apt-get -qq -o APT::Sandbox::User=root "$@" >>"$log" 2>&1
}

complete() {
  "$1/usr/bin/prometheus" --version >/dev/null 2>&1 && "$1/usr/bin/promtool" --version >/dev/null 2>&1
}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
log=$work/log

if [ "${1:-}" = node ]; then
  if ! command -v node >/dev/null || ! command -v npm >/dev/null; then
    [ "$(id -u)" = 0 ] && DEBIAN_FRONTEND=noninteractive apt install -y --no-install-recommends nodejs npm ||
      { cat "$log" >&2; fail "the SDKs for Node need nodejs and npm: install them"; }
  fi
  echo "tools.sh: node $(node --version), npm $(npm --version 2>/dev/null)"
  exit
fi

if ! complete "$tools"; then
  command -v apt-get >/dev/null && command -v dpkg >/dev/null ||
    fail "this is no Debian: put prometheus and promtool (2.40 or later) into $tools/usr/bin by hand, and run this again"
  (cd "$work" && apt download prometheus) ||
    { cat "$log" >&2; fail "apt-get could not download the package 'prometheus'; is there a network, and a package list?"; }
  dpkg -x "$work"/prometheus_*.deb "$work/root" || fail "the package 'prometheus' is damaged; run this again"
  complete "$work/root" || fail "the package 'prometheus' does not run on this machine ($(uname -m))"
  mkdir -p "$tools/usr/bin"
  # Moved in whole, one by one: two runs at the same time leave one good copy.
  for name in prometheus promtool; do
    cp "$work/root/usr/bin/$name" "$tools/usr/bin/.$name.$$"
    mv -f "$tools/usr/bin/.$name.$$" "$tools/usr/bin/$name"
  done
fi

if ! command -v "$(go env CC)" >/dev/null; then
  command -v apt-get >/dev/null || fail "go test -race needs a C compiler: install gcc"
  [ "$(id -u)" = 0 ] || fail "go test -race needs a C compiler: run 'apt-get install gcc libc6-dev' as root"
  DEBIAN_FRONTEND=noninteractive apt install -y --no-install-recommends gcc libc6-dev ||
    { cat "$log" >&2; fail "apt-get could not install gcc and libc6-dev, which go test -race needs"; }
fi

# The demo's lines are for curl, and are pasted in a test.
if ! command -v curl >/dev/null; then
  [ "$(id -u)" = 0 ] && DEBIAN_FRONTEND=noninteractive apt install -y --no-install-recommends curl ||
    fail "the tests of the demo need curl: install it"
fi

# The authorisation pages are opened in a real browser. The font has Chinese characters, for screenshots.
if [ "${WXPROXY_NO_BROWSER:-}" != 1 ] && ! command -v chromium >/dev/null; then
  [ "$(id -u)" = 0 ] && DEBIAN_FRONTEND=noninteractive apt install -y --no-install-recommends chromium fonts-wqy-microhei ||
    fail "the tests of the pages need chromium: install it, or set WXPROXY_NO_BROWSER=1"
fi

# Redis, with those of its libraries that the machine does not have. They lie beside it, so each program gets a
# script in front that says where.
redis() { "$1/usr/bin/redis-server" --version >/dev/null 2>&1 && "$1/usr/bin/redis-cli" --version >/dev/null 2>&1; }
if ! redis "$tools"; then
  command -v apt-get >/dev/null && command -v dpkg >/dev/null ||
    fail "this is no Debian: put redis-server and redis-cli (6 or later) into $tools/usr/bin by hand, and run this again"
  packages() { # redis-tools holds the programs; redis-server is but a link and a service
    echo redis-tools redis-server
    for lib in $(apt-cache depends --important redis-tools | sed -n 's/^ *|\{0,1\}Depends: \(lib[^<]*\)$/\1/p'); do
      dpkg -s "$lib" >/dev/null 2>&1 || echo "$lib"
    done
  }
  mkdir "$work/redis"
  apt-cache show redis-tools >/dev/null 2>&1 || apt-get -qq update >"$log" 2>&1 || true
  (cd "$work/redis" && apt download $(packages)) ||
    { cat "$log" >&2; fail "apt-get could not download the package 'redis-server'; is there a network, and a package list?"; }
  for deb in "$work"/redis/*.deb; do dpkg -x "$deb" "$work/redis/root" || fail "$deb is damaged; run this again"; done
  find "$work/redis/root" -name 'lib*.so*' -exec cp -P -t "$work/redis" {} +
  for name in redis-server redis-cli; do
    cp "$work/redis/root/usr/bin/$name" "$work/redis/$name"
    cat >"$work/redis/$name.sh" <<'END'
#!/bin/sh
here=$(dirname "$(readlink -f "$0")")/../lib/redis
LD_LIBRARY_PATH=$here exec "$here/$(basename "$0")" "$@"
END
    chmod +x "$work/redis/$name.sh"
  done
  rm -rf "$work"/redis/*.deb "$work/redis/root"
  mkdir -p "$tools/usr/bin" "$tools/usr/lib/redis"
  # Moved in whole, one by one, the scripts last: as above.
  for file in "$work"/redis/*; do
    name=$(basename "$file") to=$tools/usr/lib/redis
    case $name in *.sh) continue ;; esac
    cp -P "$file" "$to/.$name.$$" && mv -f "$to/.$name.$$" "$to/$name"
  done
  for name in redis-server redis-cli; do
    cp "$work/redis/$name.sh" "$tools/usr/bin/.$name.$$"
    mv -f "$tools/usr/bin/.$name.$$" "$tools/usr/bin/$name"
  done
  redis "$tools" || fail "the package 'redis-server' does not run on this machine ($(uname -m))"
fi

"$tools/usr/bin/prometheus" --version 2>&1 | sed -n 1p
"$tools/usr/bin/redis-server" --version
echo "tools.sh: all there"
