#!/usr/bin/env bash
# Finds or builds the vllm-perf binary for the GitHub action and the Buildkite plugin, and prints its path.
#
#   VLLM_PERF_INSTALL       auto (the default), cargo or path
#   VLLM_PERF_BIN           path of a binary that is installed already
#   VLLM_PERF_INSTALL_ROOT  folder that `cargo` installs into
#
# `path` takes VLLM_PERF_BIN, or `vllm-perf` of the PATH. `cargo` builds this checkout, so that a pinned action is a
# pinned binary. `auto` is `path` where VLLM_PERF_BIN is set, else `cargo`. There are no prebuilt binaries to download.
set -euo pipefail

fail() {
  echo "vllm-perf: $1" >&2
  exit 2
}

how="${VLLM_PERF_INSTALL:-auto}"
bin="${VLLM_PERF_BIN:-}"
if [[ "$how" == auto ]]; then
  how=cargo
  [[ -z "$bin" ]] || how=path
fi

case "$how" in
  path)
    bin="${bin:-vllm-perf}"
    found="$(command -v -- "$bin")" || fail "\`$bin\` is not an executable: set \`bin\` to the path of an installed vllm-perf"
    ;;
  cargo)
    command -v cargo >/dev/null || fail "cargo is not installed: install Rust, or set \`install: path\` and \`bin\`"
    checkout="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
    install_root="${VLLM_PERF_INSTALL_ROOT:-$checkout/target/installed}"
    cargo install --quiet --locked --path "$checkout" --root "$install_root" >&2
    found="$install_root/bin/vllm-perf"
    ;;
  *) fail "\`install\` is \`$how\`: expected auto, cargo or path" ;;
esac

"$found" --version >&2 || fail "\`$found\` does not run on this machine"
echo "$found"
