#!/usr/bin/env bash
# Installs what the tests need besides Go: a C compiler for the race detector, curl,
# OpenSSL, strace, systemd-analyze, and Chromium for the pages (not with
# WXPROXY_NO_BROWSER=1). It unpacks a real Prometheus with promtool, a Redis and an
# HAProxy into .tools/ without installing or starting them. Running it again keeps
# what is there.
#
# With the argument "runtimes" it installs Node.js, npm, Python, PHP and Java
# instead, for the SDKs and services of `make conformance`. WXPROXY_TOOLS names
# another directory than .tools, for the tests as well.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
tools=${WXPROXY_TOOLS:-$PWD/.tools}

fail() { echo "tools.sh: $*" >&2; exit 1; }

# apt OPERATION PACKAGE…: runs apt-get, and once more after an update if it fails.
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

if [ "${1:-}" = runtimes ]; then
  needed=$(for pair in node:nodejs npm:npm python3:python3 php:php-cli javac:default-jdk-headless; do
    command -v "${pair%:*}" >/dev/null || echo "${pair#*:}"
  done)
  php -m 2>/dev/null | grep -q SimpleXML || needed="$needed php-xml"
  if [ -n "$needed" ]; then
    [ "$(id -u)" = 0 ] && DEBIAN_FRONTEND=noninteractive apt install -y --no-install-recommends $needed ||
      { cat "$log" >&2; fail "make conformance needs" $needed": install them"; }
  fi
  echo "tools.sh: node $(node --version), npm $(npm --version 2>/dev/null), $(python3 --version)," \
    "$(php --version | head -n 1 | cut -d' ' -f1-2), java $(javac --version)"
  exit
fi

if ! complete "$tools"; then
  command -v apt-get >/dev/null && command -v dpkg >/dev/null ||
    fail "apt-get not found: put prometheus and promtool (2.40 or later) into $tools/usr/bin, and run this again"
  (cd "$work" && apt download prometheus) ||
    { cat "$log" >&2; fail "downloading the package 'prometheus' failed; check the network and the package lists"; }
  dpkg -x "$work"/prometheus_*.deb "$work/root" || fail "the package 'prometheus' is damaged; run this again"
  complete "$work/root" || fail "the package 'prometheus' does not run on this machine ($(uname -m))"
  mkdir -p "$tools/usr/bin"
  # Move complete files into place, so that concurrent runs leave a good copy.
  for name in prometheus promtool; do
    cp "$work/root/usr/bin/$name" "$tools/usr/bin/.$name.$$"
    mv -f "$tools/usr/bin/.$name.$$" "$tools/usr/bin/$name"
  done
fi

if ! command -v "$(go env CC)" >/dev/null; then
  command -v apt-get >/dev/null || fail "go test -race needs a C compiler: install gcc"
  [ "$(id -u)" = 0 ] || fail "go test -race needs a C compiler: run 'apt-get install gcc libc6-dev' as root"
  DEBIAN_FRONTEND=noninteractive apt install -y --no-install-recommends gcc libc6-dev ||
    { cat "$log" >&2; fail "installing gcc and libc6-dev failed, which go test -race needs"; }
fi

# A test runs the demo's curl commands.
if ! command -v curl >/dev/null; then
  [ "$(id -u)" = 0 ] && DEBIAN_FRONTEND=noninteractive apt install -y --no-install-recommends curl ||
    fail "the tests of the demo need curl: install it"
fi

# Tests run a script of deploy/ that needs OpenSSL, have systemd check the unit, and
# make a disk fail with strace.
needed=$(for pair in openssl:openssl strace:strace systemd-analyze:systemd; do command -v "${pair%:*}" >/dev/null || echo "${pair#*:}"; done)
if [ -n "$needed" ]; then
  [ "$(id -u)" = 0 ] && DEBIAN_FRONTEND=noninteractive apt install -y --no-install-recommends $needed ||
    { cat "$log" >&2; fail "tests need" $needed": install them"; }
fi

# Tests open the authorization pages in a real browser. The font has the Chinese
# characters for screenshots.
if [ "${WXPROXY_NO_BROWSER:-}" != 1 ] && ! command -v chromium >/dev/null; then
  [ "$(id -u)" = 0 ] && DEBIAN_FRONTEND=noninteractive apt install -y --no-install-recommends chromium fonts-wqy-microhei ||
    fail "the tests of the pages need chromium: install it, or set WXPROXY_NO_BROWSER=1"
fi

# unpack NAME PACKAGES PATHS [ARGUMENT]: unpacks programs from packages that would
# start a server when installed, with the libraries that the machine does not have.
# The libraries are beside the programs, so a script for each program sets the path.
# ARGUMENT makes a program print its version.
unpack() {
  local name=$1 packages=$2 programs=$3 argument=${4:---version} lib file to
  there() { for file in $programs; do "$tools/usr/bin/$(basename "$file")" "$argument" >/dev/null 2>&1 || return 1; done; }
  if there; then return; fi
  command -v apt-get >/dev/null && command -v dpkg >/dev/null ||
    fail "apt-get not found: put $(for file in $programs; do basename "$file"; done | xargs) into $tools/usr/bin, and run this again"
  apt-cache show $packages >/dev/null 2>&1 || apt-get -qq update >"$log" 2>&1 || true
  # A simulated installation lists every missing library, with those that other
  # libraries need.
  packages=$(printf '%s\n' $packages $(apt-get -s --no-install-recommends install $packages | sed -n 's/^Inst \(lib[^ ]*\).*/\1/p') | sort -u)
  mkdir "$work/$name"
  (cd "$work/$name" && apt download $packages) ||
    { cat "$log" >&2; fail "downloading $packages failed; check the network and the package lists"; }
  for file in "$work/$name"/*.deb; do dpkg -x "$file" "$work/$name/root" || fail "$file is damaged; run this again"; done
  find "$work/$name/root" -name 'lib*.so*' -exec cp -P -t "$work/$name" {} +
  for file in $programs; do
    cp "$work/$name/root/$file" "$work/$name/$(basename "$file")"
    cat >"$work/$name/$(basename "$file").sh" <<END
#!/bin/sh
here=\$(dirname "\$(readlink -f "\$0")")/../lib/$name
LD_LIBRARY_PATH=\$here exec "\$here/\$(basename "\$0")" "\$@"
END
    chmod +x "$work/$name/$(basename "$file").sh"
  done
  rm -rf "$work/$name"/*.deb "$work/$name/root"
  mkdir -p "$tools/usr/bin" "$tools/usr/lib/$name"
  # Move complete files into place as above, the scripts last.
  to=$tools/usr/lib/$name
  for file in "$work/$name"/*; do
    case $file in *.sh) continue ;; esac
    cp -P "$file" "$to/.new.$$" && mv -f "$to/.new.$$" "$to/$(basename "$file")"
  done
  to=$tools/usr/bin
  for file in "$work/$name"/*.sh; do
    cp "$file" "$to/.new.$$" && mv -f "$to/.new.$$" "$to/$(basename "$file" .sh)"
  done
  there || fail "the programs of $packages do not run on this machine ($(uname -m))"
}
unpack redis "redis-tools redis-server" "usr/bin/redis-server usr/bin/redis-cli"
unpack haproxy haproxy usr/sbin/haproxy -v

"$tools/usr/bin/prometheus" --version 2>&1 | sed -n 1p
"$tools/usr/bin/redis-server" --version
"$tools/usr/bin/haproxy" -v | sed -n 1p
echo "tools.sh: complete"
