#!/usr/bin/env bash
# Finds, downloads or builds the vllm-perf binary for the GitHub action and the Buildkite plugin, and prints its path.
#
#   VLLM_PERF_INSTALL             auto (the default), download, cargo or path
#   VLLM_PERF_BIN                 path of a binary that is installed already
#   VLLM_PERF_VERSION             version to download, in place of dist/VERSION; needs VLLM_PERF_SHA256
#   VLLM_PERF_SHA256              SHA-256 of that version's archive for this machine
#   VLLM_PERF_VERIFY_ATTESTATION  true: the archive's provenance has to hold, too (GitHub's `gh`, 2.49 or newer)
#   VLLM_PERF_INSTALL_ROOT        folder that `cargo` installs into, and in which archives are kept
#   VLLM_PERF_DOWNLOAD_URL        where releases are, in place of GitHub; https, or http on this machine
#
# `path` takes VLLM_PERF_BIN, or `vllm-perf` of the PATH. `download` takes the release in dist/VERSION, whose sums are
# committed in dist/SHA256SUMS, so that a pinned action is a pinned binary. `cargo` builds this checkout. `auto` is
# `path` where VLLM_PERF_BIN is set, `download` where the sum for this machine is known, else `cargo`; it also falls
# back to `cargo` where the download does not arrive, and says so. What arrives with a wrong sum ends it, always.
#
# It may be called in the checkout of a pull request, and runs nothing of it: cargo runs in a folder of its own with a
# toolchain that no file of a checkout names. No program gets a token but `gh`, and that one for attestations only.
set -euo pipefail

token="${GH_TOKEN:-${GITHUB_TOKEN:-}}"
unset GH_TOKEN GITHUB_TOKEN GH_ENTERPRISE_TOKEN GITHUB_ENTERPRISE_TOKEN

# A relative folder in PATH, such as `.`, is a folder of the checkout.
absolute=
while IFS= read -r -d : folder; do
  [[ "$folder" != /* ]] || absolute="$absolute${absolute:+:}$folder"
done <<<"${PATH-}:"
PATH="$absolute"

repository=vllm-project/vllm-perf
checkout="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
root="${VLLM_PERF_INSTALL_ROOT:-$checkout/target/installed}"
how="${VLLM_PERF_INSTALL:-auto}"
bin="${VLLM_PERF_BIN:-}"
wanted="${VLLM_PERF_VERSION:-}"
sum="${VLLM_PERF_SHA256:-}"
attested="${VLLM_PERF_VERIFY_ATTESTATION:-false}"

# Folders that are removed at the end.
temporary=()
trap 'rm -rf -- ${temporary[@]+"${temporary[@]}"}' EXIT

say() {
  echo "vllm-perf: $1" >&2
}
# The user's mistake.
fail() {
  say "$1"
  exit 2
}
# External failure.
broken() {
  say "$1"
  exit 4
}
need() {
  command -v "$1" >/dev/null || fail "$1 is not installed: install it, or set \`install: $2\`"
}

# The target of this machine's archive; nothing where none is built.
target() {
  case "$(uname -s) $(uname -m)" in
    "Linux x86_64" | "Linux amd64") echo x86_64-unknown-linux-musl ;;
    "Linux aarch64" | "Linux arm64") echo aarch64-unknown-linux-musl ;;
  esac
}
digest() {
  sha256sum <"$1" | cut -d ' ' -f 1
}

# Downloads the archive to $1. What `auto` may fall back from is 1; the last words of curl are on stderr.
fetch() {
  local base="${VLLM_PERF_DOWNLOAD_URL:-https://github.com/$repository/releases/download}" protocol='=https'
  if [[ "$base" =~ ^http://(127\.0\.0\.1|localhost|\[::1\])(:[0-9]+)?(/|$) ]]; then
    protocol='=http'
  elif [[ "$base" != https://* ]]; then
    fail "\`$base\` is no https address: releases are taken over https only"
  fi
  say "downloading $archive from $base"
  curl --disable --proto "$protocol" --proto-redir "$protocol" --tlsv1.2 --fail --silent --show-error --location \
    --retry 3 --retry-all-errors --connect-timeout 20 --max-time 600 --output "$1" "${base%/}/v$version/$archive" >&2
}

attestation() {
  GH_TOKEN="$token" gh attestation verify "$1" --repo "$repository" --signer-workflow "$repository/.github/workflows/release.yml" \
    --deny-self-hosted-runners >&2 || broken "the provenance of $archive does not hold: it is not used"
}

# Sets `found` to the binary of the archive, or ends; 1 where the archive did not arrive.
download() {
  local folder="$root/$version-${sum:0:12}" work kept actual
  if ! { mkdir -p "$folder" && work="$(mktemp --directory --tmpdir="$folder")"; } 2>/dev/null; then
    kept="$folder/$archive"
    folder="$(mktemp -d)" || broken "there is no folder to install into: set \`TMPDIR\` to one that can be written"
    work="$(mktemp --directory --tmpdir="$folder")"
    say "$root cannot be written: installing into $folder"
  fi
  kept="${kept:-$folder/$archive}"
  temporary+=("$work")

  # The copy is what is checked and opened: nobody else writes there.
  if [[ -f "$kept" ]] && cp -- "$kept" "$work/archive" 2>/dev/null && [[ "$(digest "$work/archive")" == "$sum" ]]; then
    say "using the archive in $(dirname "$kept")"
  else
    [[ ! -e "$kept" ]] || say "$kept is not what was put there: downloading it again"
    fetch "$work/archive" || return 1
    actual="$(digest "$work/archive")"
    [[ "$actual" == "$sum" ]] || broken "$archive has the SHA-256 $actual, expected $sum: it is not used"
    cp -- "$work/archive" "$work/kept" && mv -f -- "$work/kept" "$folder/$archive"
  fi
  [[ "$attested" == false ]] || attestation "$work/archive"

  # One file, through a pipe: an archive can neither name a path nor make a link.
  tar -xzOf "$work/archive" vllm-perf >"$work/vllm-perf" || broken "$archive cannot be unpacked"
  chmod 755 "$work/vllm-perf"
  mv -f -- "$work/vllm-perf" "$folder/vllm-perf"
  found="$folder/vllm-perf"
}

# The name of the toolchain: that of the environment, or else rustup's default, wherever this is called.
toolchain() {
  local name="${RUSTUP_TOOLCHAIN:-}"
  [[ "$name" =~ ^[A-Za-z0-9._-]+$ ]] || name="$(cd / && isolated rustup default 2>/dev/null | cut -d ' ' -f 1)" || true
  [[ "$name" =~ ^[A-Za-z0-9._-]+$ ]] || name=stable
  echo "$name"
}

# Runs a program with the variables that cargo and rustup need: a build runs the code of every dependency.
isolated() {
  local name kept=()
  for name in PATH HOME USER LOGNAME LANG LC_ALL TERM TMPDIR CARGO_HOME RUSTUP_HOME RUSTUP_TOOLCHAIN \
    RUSTUP_DIST_SERVER RUSTUP_UPDATE_ROOT CARGO_BUILD_JOBS CARGO_HTTP_CAINFO CARGO_HTTP_PROXY CARGO_HTTP_TIMEOUT \
    CARGO_NET_OFFLINE CARGO_NET_RETRY CARGO_NET_GIT_FETCH_WITH_CLI CARGO_TARGET_DIR CC AR http_proxy https_proxy \
    all_proxy no_proxy HTTP_PROXY HTTPS_PROXY ALL_PROXY NO_PROXY SSL_CERT_FILE SSL_CERT_DIR; do
    [[ -z "${!name+set}" ]] || kept+=("$name=${!name}")
  done
  env --ignore-environment "${kept[@]}" "$@"
}

# Builds a copy, so that no folder above it has settings for cargo, as a checkout around this one could.
build() {
  local work
  need cargo "download\` or \`install: path"
  [[ -z "$wanted" || "$wanted" == "$bundled" ]] || fail "\`cargo\` builds version $bundled, not $wanted: set \`install: download\`"
  say "building version $bundled from $checkout"
  { mkdir -p "$root" && root="$(cd "$root" && pwd)"; } || broken "$root cannot be made: set \`VLLM_PERF_INSTALL_ROOT\`"
  work="$(mktemp -d)" || broken "there is no folder to build in: set \`TMPDIR\` to one that can be written"
  temporary+=("$work")
  # cargo obeys the settings of every folder above.
  local above="$work" settings
  while [[ "$above" != / ]]; do
    above="$(dirname "$above")"
    for settings in "${above%/}/.cargo/config" "${above%/}/.cargo/config.toml"; do
      [[ ! -e "$settings" || "${above%/}/.cargo" == "${CARGO_HOME:-$HOME/.cargo}" ]] ||
        broken "$settings would decide how cargo builds: set \`TMPDIR\` to another folder"
    done
  done
  mkdir "$work/source"
  tar -C "$checkout" --exclude=./target --exclude=./.git -cf - . | tar -C "$work/source" -xf - ||
    broken "$checkout cannot be copied to $work"
  (
    cd "$work/source"
    RUSTUP_TOOLCHAIN="$(toolchain)"
    CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$root/build}"
    isolated cargo install --quiet --locked --path "$work/source" --root "$root" >&2
  ) || broken "cargo could not build $checkout"
  found="$root/bin/vllm-perf"
}

# Why a file does not run, from the machine in its ELF header.
machine() {
  case "$(od -An -j 18 -N 2 -t u2 -- "$1" 2>/dev/null | tr -d ' ')" in
    62) echo x86_64 ;;
    183) echo aarch64 ;;
  esac
}

bundled="$(<"$checkout/dist/VERSION")"
wanted="${wanted#v}"
version="${wanted:-$bundled}"
[[ "$version" =~ ^[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.-]+)?$ ]] || fail "\`version\` is \`$version\`: expected a release such as $bundled"
[[ -z "$sum" || "$sum" =~ ^[0-9a-f]{64}$ ]] || fail "\`sha256\` is \`$sum\`: expected 64 hexadecimal digits, in lower case"
archive="vllm-perf-v$version-$(target).tar.gz"
committed="$(awk -v name="$archive" '$2 == name { print $1 }' "$checkout/dist/SHA256SUMS")"
if [[ "$version" != "$bundled" && -z "$sum" && "$how" != path && "$how" != cargo ]]; then
  [[ -n "$bin" ]] || fail "\`version\` is $version and this checkout knows the sums of $bundled alone: set \`sha256\` to that of $archive"
fi
if [[ -n "$sum" && -n "$committed" && "$sum" != "$committed" ]]; then
  fail "\`sha256\` is $sum, but that of $archive is $committed"
fi
sum="${sum:-$committed}"
[[ -n "$(target)" ]] || sum=
known="the sum of a release for $(uname -s) on $(uname -m) is not in dist/SHA256SUMS (version $version)"
case "$attested" in
  true)
    [[ "$how" == download || ("$how" == auto && -z "$bin") ]] || fail "\`verify-attestation\` is about downloads: remove \`install: $how\`${bin:+ and \`bin\`}"
    how=download
    command -v gh >/dev/null || fail "\`verify-attestation\` needs GitHub's \`gh\`, which is not installed"
    gh attestation verify --help >/dev/null 2>&1 || fail "\`verify-attestation\` needs \`gh\` 2.49 or newer, and this is $(gh --version | head -n 1)"
    ;;
  false) ;;
  *) fail "\`verify-attestation\` is \`$attested\`: expected true or false" ;;
esac

case "$how" in
  path)
    bin="${bin:-vllm-perf}"
    found="$(command -v -- "$bin")" || fail "\`$bin\` is not an executable: set \`bin\` to the path of an installed vllm-perf"
    ;;
  cargo) build ;;
  download)
    [[ -n "$sum" ]] || fail "$known: set \`install: cargo\`, or \`sha256\`"
    need curl cargo
    download || broken "$archive could not be downloaded"
    ;;
  auto)
    if [[ -n "$bin" ]]; then
      found="$(command -v -- "$bin")" || fail "\`$bin\` is not an executable: set \`bin\` to the path of an installed vllm-perf"
    elif [[ -z "$sum" ]]; then
      say "warning: $known; building it instead"
      build
    else
      need curl cargo
      download || {
        say "warning: $archive could not be downloaded; building it instead"
        build
      }
    fi
    ;;
  *) fail "\`install\` is \`$how\`: expected auto, download, cargo or path" ;;
esac

said="$("$found" --version)" || {
  for_machine="$(machine "$found")"
  [[ -z "$for_machine" || "$for_machine" == "$(uname -m)" ]] || fail "\`$found\` is built for $for_machine, and this machine is $(uname -m)"
  fail "\`$found\` does not run on this machine"
}
[[ "$said" == "vllm-perf "* ]] || fail "\`$found\` is not vllm-perf: \`--version\` gives \`${said:0:80}\`"
[[ -z "$wanted" || "$said" == "vllm-perf $wanted" ]] || fail "\`$found\` is \`${said:0:80}\`, and \`version\` is $wanted"
say "$said, $found"
echo "$found"
