#!/usr/bin/env bash
# Installs what qwenbench needs from the distribution (Debian 12, Ubuntu 24.04). What is there already is left alone.
#   scripts/setup.sh          everything: build, tests, sanitizers, fuzzing
#   scripts/setup.sh all      the same, and Chromium and Slurm, without which some tests are skipped
#   scripts/setup.sh minimal  only what building and running need
set -euo pipefail

build_packages=(g++ cmake ninja-build pkg-config git libcli11-dev libfmt-dev nlohmann-json3-dev libeigen3-dev
                libpng-dev libjpeg-dev libpcre2-dev libutf8proc-dev libboost-dev libjs-chart.js)
test_packages=(doctest-dev ccache python3 python3-jsonschema clang util-linux binutils)
# Some tests are skipped, and say so, without these: headless Chromium, a small Slurm.
optional_packages=(chromium munge slurmctld slurmd slurm-client)

case "${1:-full}" in
  minimal) wanted=("${build_packages[@]}") ;;
  full) wanted=("${build_packages[@]}" "${test_packages[@]}") ;;
  all) wanted=("${build_packages[@]}" "${test_packages[@]}" "${optional_packages[@]}") ;;
  *) echo "usage: $0 [minimal|full|all]" >&2; exit 2 ;;
esac

if ! command -v apt-get >/dev/null || ! command -v dpkg-query >/dev/null; then
  echo "setup: no apt-get here; install what these Debian packages hold, then go on: ${wanted[*]}" >&2
  exit 1
fi

as_root() {
  if [ "$(id -u)" -eq 0 ]; then
    "$@"
  elif command -v sudo >/dev/null; then
    sudo "$@"
  else
    echo "setup: neither root nor sudo; ask somebody who is to run: apt-get install ${missing[*]}" >&2
    exit 1
  fi
}

missing=()
note_missing() {
  missing=()
  local package
  for package in "$@"; do
    dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
  done
}

install_missing() {
  [ "${#missing[@]}" -eq 0 ] && return
  echo "setup: installing ${missing[*]}" >&2
  as_root apt-get update -q >&2
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}" >&2
}

note_missing "${wanted[@]}"
install_missing

# libFuzzer and the sanitizers of clang lie in a package named after its version.
if [ "${1:-full}" != minimal ]; then
  note_missing "libclang-rt-$(clang -dumpversion | cut -d. -f1)-dev"
  install_missing
fi
