# scripts/install.sh against releases on loopback, some of which go wrong. `tests/real/install` runs this file.

setup() {
  cd "$BATS_TEST_TMPDIR" || return
  mkdir -p checkout/scripts checkout/dist releases made home
  cp "$BATS_TEST_DIRNAME/../../scripts/install.sh" checkout/scripts/
  echo 9.8.7 >checkout/dist/VERSION
  target="$(uname -m)-unknown-linux-musl"
  release 9.8.7
  sums >checkout/dist/SHA256SUMS
  python3 "$BATS_TEST_DIRNAME/install.py" releases >port 2>requests.log 3>&- &
  server=$!
  until [ -s port ]; do sleep 0.05; done
}

teardown() {
  kill "$server"
}

# Makes the archive of version $1, with a program that says $2 or `vllm-perf VERSION`.
release() {
  printf '#!/bin/sh\necho "%s"\n' "${2:-vllm-perf $1}" >made/vllm-perf
  chmod +x made/vllm-perf
  pack "$1"
}
pack() {
  tar -czf "releases/vllm-perf-v$1-$target.tar.gz" -C made vllm-perf
}
sums() {
  (cd releases && sha256sum -- *.tar.gz)
}
# Runs the installer with fault $1 and the variables that follow; what it prints is the output, what it says said.log.
install() {
  local fault="$1"
  shift
  env --ignore-environment "PATH=$PWD/path:$PATH" "HOME=$PWD/home" "TMPDIR=$PWD" "VLLM_PERF_INSTALL_ROOT=$PWD/cache" \
    "VLLM_PERF_DOWNLOAD_URL=http://127.0.0.1:$(<port)/$fault" "$@" bash checkout/scripts/install.sh 2>>said.log
}
# A `cargo` that notes what it is asked and makes a binary, for where a real build would take minutes.
stand_in_for_cargo() {
  mkdir path
  cat >path/cargo <<CARGO
#!/usr/bin/env bash
sed 's#[^ ]*/source#SOURCE#' <<<"\$*" >>$PWD/cargo.log
echo "\$PWD \$RUSTUP_TOOLCHAIN \$(env)" >>$PWD/environment.log
mkdir -p "\${!#}/bin"
cp $PWD/made/vllm-perf "\${!#}/bin/"
CARGO
  chmod +x path/cargo
}
said() {
  grep -qF -- "$1" said.log || { cat said.log; return 1; }
}
requests() {
  [ "$(wc -l <requests.log)" -eq "$1" ]
}

@test "the archive with the committed sum is installed, and the second time taken from the cache" {
  run install ok VLLM_PERF_INSTALL=download
  [ "$status" -eq 0 ]
  [ "$("$output")" = "vllm-perf 9.8.7" ]
  first="$output"
  run install ok VLLM_PERF_INSTALL=download
  [ "$status" -eq 0 ]
  [ "$output" = "$first" ]
  requests 1
  grep -q "GET /ok/v9.8.7/vllm-perf-v9.8.7-$target.tar.gz" requests.log
  [ "$(find cache -name '.*' -o -name 'tmp.*' | wc -l)" -eq 0 ]
}

@test "a corrupted download is refused, and auto does not build instead" {
  stand_in_for_cargo
  for how in download auto; do
    run install corrupted VLLM_PERF_INSTALL=$how
    [ "$status" -eq 4 ]
    [ -z "$output" ]
  done
  said "expected $(sums | cut -d ' ' -f 1): it is not used"
  [ ! -e cargo.log ]
  [ -z "$(find cache -type f)" ]
}

@test "a download that ends early is tried again, and then said to have failed" {
  run install truncated VLLM_PERF_INSTALL=download
  [ "$status" -eq 4 ]
  said "could not be downloaded"
  requests 4
  [ -z "$(find cache -type f)" ]
}

@test "a truncated archive whose sum holds cannot be unpacked, and is not installed" {
  head -c 60 "releases/vllm-perf-v9.8.7-$target.tar.gz" >short
  mv short "releases/vllm-perf-v9.8.7-$target.tar.gz"
  sums >checkout/dist/SHA256SUMS
  run install ok VLLM_PERF_INSTALL=download
  [ "$status" -eq 4 ]
  said "cannot be unpacked"
  [ -z "$(find cache -name vllm-perf)" ]
}

@test "5xx twice and then the archive is an install" {
  run install away VLLM_PERF_INSTALL=download
  [ "$status" -eq 0 ]
  requests 3
}

@test "a release that is not there: download fails, auto builds and warns" {
  stand_in_for_cargo
  rm releases/*
  run install ok VLLM_PERF_INSTALL=download
  [ "$status" -eq 4 ]
  said "could not be downloaded"
  run install ok
  [ "$status" -eq 0 ]
  [ "$output" = "$PWD/cache/bin/vllm-perf" ]
  said "warning: vllm-perf-v9.8.7-$target.tar.gz could not be downloaded; building it instead"
  [ "$(<cargo.log)" = "install --quiet --locked --path SOURCE --root $PWD/cache" ]
}

@test "before the first release auto builds and warns, and download says why not" {
  stand_in_for_cargo
  echo '# none yet' >checkout/dist/SHA256SUMS
  run install ok
  [ "$status" -eq 0 ]
  said "is not in dist/SHA256SUMS (version 9.8.7); building it instead"
  run install ok VLLM_PERF_INSTALL=download
  [ "$status" -eq 2 ]
  said "is not in dist/SHA256SUMS (version 9.8.7): set \`install: cargo\`"
  requests 0
}

@test "an archive that was changed in the cache is downloaded again, and a changed binary replaced" {
  run install ok VLLM_PERF_INSTALL=download
  installed="$output"
  echo '#!/bin/sh' >"$installed"
  run install ok VLLM_PERF_INSTALL=download
  [ "$("$installed")" = "vllm-perf 9.8.7" ]
  requests 1
  echo more >>"$(find cache -name '*.tar.gz')"
  run install ok VLLM_PERF_INSTALL=download
  [ "$status" -eq 0 ]
  said "is not what was put there: downloading it again"
  requests 2
  [ "$(sha256sum <"$(find cache -name '*.tar.gz')" | cut -d ' ' -f 1)" = "$(sums | cut -d ' ' -f 1)" ]
}

@test "a cache that cannot be written: a temporary folder, and the archive in it is used where there is one" {
  echo 'no folder' >cache
  run install ok VLLM_PERF_INSTALL=download
  [ "$status" -eq 0 ]
  [ "$("$output")" = "vllm-perf 9.8.7" ]
  [[ "$output" != "$PWD/cache"* ]]
  said "$PWD/cache cannot be written: installing into $PWD/tmp."
  rm cache
  run install ok VLLM_PERF_INSTALL=download
  requests 2
  # Root may write anywhere: what the installer would make is refused to it by a stand-in.
  mkdir path
  # shellcheck disable=SC2016 # the stand-in expands it
  printf '#!/bin/sh\ncase "$*" in *"$PWD"/cache/*) exit 1 ;; esac\nexec /usr/bin/mktemp "$@"\n' >path/mktemp
  chmod +x path/mktemp
  run install ok VLLM_PERF_INSTALL=download
  [ "$status" -eq 0 ]
  [[ "$output" != "$PWD/cache"* ]]
  requests 2
}

@test "two installs at once both end with the whole binary" {
  install ok VLLM_PERF_INSTALL=download >one 3>&- &
  one=$!
  install ok VLLM_PERF_INSTALL=download >two
  wait "$one"
  [ "$(<one)" = "$(<two)" ]
  [ "$("$(<one)")" = "vllm-perf 9.8.7" ]
  [ "$(find cache -type f | wc -l)" -eq 2 ]
}

@test "a binary for another machine is named as that" {
  printf '\177ELF\2\1\1\0\0\0\0\0\0\0\0\0\2\0\363\0%0100d' 0 >made/vllm-perf
  chmod +x made/vllm-perf
  run install ok VLLM_PERF_INSTALL=path VLLM_PERF_BIN=made/vllm-perf
  [ "$status" -eq 2 ]
  said "does not run on this machine"
  other=aarch64 code='\267'
  [ "$(uname -m)" != aarch64 ] || other=x86_64 code='>'
  # shellcheck disable=SC2059 # the format is the file
  printf "\177ELF\2\1\1\0\0\0\0\0\0\0\0\0\2\0$code\0%0100d" 0 >made/vllm-perf
  pack 9.8.7
  sums >checkout/dist/SHA256SUMS
  run install ok VLLM_PERF_INSTALL=download
  [ "$status" -eq 2 ]
  said "is built for $other, and this machine is $(uname -m)"
}

@test "an archive of another program or version explains itself" {
  release 9.8.7 "something else"
  sums >checkout/dist/SHA256SUMS
  run install ok VLLM_PERF_INSTALL=download
  [ "$status" -eq 2 ]
  said "is not vllm-perf: \`--version\` gives \`something else\`"
}

@test "another version needs its sum, and is installed with it" {
  release 9.9.0
  run install ok VLLM_PERF_VERSION=v9.9.0
  [ "$status" -eq 2 ]
  said "set \`sha256\` to that of vllm-perf-v9.9.0-$target.tar.gz"
  requests 0
  run install ok VLLM_PERF_VERSION=9.9.0 "VLLM_PERF_SHA256=$(sums | awk '/9.9.0/ { print $1 }')"
  [ "$status" -eq 0 ]
  [ "$("$output")" = "vllm-perf 9.9.0" ]
  run install ok VLLM_PERF_VERSION=../../x "VLLM_PERF_SHA256=$(printf '%064d' 0)"
  [ "$status" -eq 2 ]
  said "\`version\` is \`../../x\`: expected a release such as 9.8.7"
}

@test "releases come over https only, also after a redirect" {
  run install ok VLLM_PERF_INSTALL=download VLLM_PERF_DOWNLOAD_URL=http://releases.invalid
  [ "$status" -eq 2 ]
  said "\`http://releases.invalid\` is no https address"
  run install elsewhere VLLM_PERF_INSTALL=download
  [ "$status" -eq 4 ]
}

@test "path takes what is installed, cargo builds the checkout, and anything else is a mistake" {
  stand_in_for_cargo
  run install ok "VLLM_PERF_BIN=$PWD/made/vllm-perf"
  [ "$status" -eq 0 ]
  [ "$output" = "$PWD/made/vllm-perf" ]
  run install ok VLLM_PERF_INSTALL=path VLLM_PERF_BIN=/nowhere/vllm-perf
  [ "$status" -eq 2 ]
  said "\`/nowhere/vllm-perf\` is not an executable"
  run install ok VLLM_PERF_INSTALL=cargo
  [ "$output" = "$PWD/cache/bin/vllm-perf" ]
  run install ok VLLM_PERF_INSTALL=brew
  [ "$status" -eq 2 ]
  said "expected auto, download, cargo or path"
  requests 0
}

@test "an attestation is asked of gh, and without a gh that can nothing is downloaded" {
  mkdir path
  # shellcheck disable=SC2016 # the stand-in expands it
  printf '#!/bin/sh\n[ "$1" = --version ] && echo "gh version 2.23.0" && exit\nexit 1\n' >path/gh
  chmod +x path/gh
  run install ok VLLM_PERF_VERIFY_ATTESTATION=true
  [ "$status" -eq 2 ]
  said "needs \`gh\` 2.49 or newer, and this is gh version 2.23.0"
  requests 0
  # shellcheck disable=SC2016 # the stand-in expands it
  printf '#!/bin/sh\necho "$*" >>gh.log\ncase "$*" in *--help) exit 0 ;; esac\n[ ! -e refuse ]\n' >path/gh
  run install ok VLLM_PERF_VERIFY_ATTESTATION=true
  [ "$status" -eq 0 ]
  grep -q -- '--signer-workflow vllm-project/vllm-perf/.github/workflows/release.yml --deny-self-hosted-runners$' gh.log
  touch refuse
  run install ok VLLM_PERF_VERIFY_ATTESTATION=true
  [ "$status" -eq 4 ]
  said "does not hold: it is not used"
}

@test "a build runs nothing of the checkout that it is called in, and gets no token" {
  stand_in_for_cargo
  mkdir -p pr/evil/bin pr/.cargo pr/target/installed
  printf '#!/bin/sh\necho ran >>%s/canary\n' "$PWD" | tee pr/evil/bin/cargo >pr/cargo
  chmod +x pr/cargo pr/evil/bin/cargo
  cp pr/cargo pr/rustup && cp pr/cargo pr/curl && cp pr/cargo pr/tar
  printf '[toolchain]\npath = "%s/pr/evil"\n' "$PWD" >pr/rust-toolchain.toml
  printf '[build]\nrustc-wrapper = "%s/pr/cargo"\n' "$PWD" >pr/.cargo/config.toml
  cp -r checkout pr/action
  home="$PWD"
  run env --ignore-environment "PATH=.:$PWD/path::bin:$PATH" "HOME=$PWD/home" "TMPDIR=$PWD/home" \
    "VLLM_PERF_INSTALL_ROOT=target/installed" VLLM_PERF_INSTALL=cargo "RUSTUP_TOOLCHAIN=$PWD/pr/evil" \
    GH_TOKEN=canary1 GITHUB_TOKEN=canary2 CARGO_REGISTRY_TOKEN=canary3 RUSTC_WRAPPER=canary4 \
    bash -c 'cd pr && bash action/scripts/install.sh 2>>../said.log'
  [ "$status" -eq 0 ]
  [ "$output" = "$home/pr/target/installed/bin/vllm-perf" ]
  [ ! -e canary ]
  run grep canary environment.log
  [ "$status" -eq 1 ]
  grep -q "^$home/home/tmp[^ ]*/source [A-Za-z0-9._-]* " environment.log
  [ -z "$(ls home)" ]
}

@test "only gh gets the token, and only for an attestation" {
  mkdir path
  # shellcheck disable=SC2016 # the stand-in expands it
  printf '#!/bin/sh\nenv >>gh.log\n' >path/gh
  printf '#!/bin/sh\nenv >>%s/others.log\nexec /usr/bin/env curl.real "$@"\n' "$PWD" >path/curl
  ln -s "$(command -v curl)" path/curl.real
  chmod +x path/gh path/curl
  run install ok VLLM_PERF_INSTALL=download GH_TOKEN=canary GITHUB_TOKEN=canary
  [ "$status" -eq 0 ]
  [ ! -e gh.log ]
  run install ok VLLM_PERF_VERIFY_ATTESTATION=true GH_TOKEN=canary GITHUB_TOKEN=canary
  [ "$status" -eq 0 ]
  grep -q '^GH_TOKEN=canary$' gh.log
  [ -e others.log ]
  run grep canary others.log
  [ "$status" -eq 1 ]
}
