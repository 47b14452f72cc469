# scripts/release on a copy of the tree. `tests/real/install` runs this file.

setup() {
  cd "$BATS_TEST_TMPDIR" || return
  git clone --quiet --no-local "$BATS_TEST_DIRNAME/../.." tree
  # What is tested is the tree as it is, with what is not committed yet.
  (cd "$BATS_TEST_DIRNAME/../.." && git ls-files --cached --others --exclude-standard -z | tar --null --ignore-failed-read -T - -cf -) | tar -xf - -C tree
  cd tree || return
  commit
  old="$(<dist/VERSION)"
}

commit() {
  git add --all
  git -c user.name=test -c user.email=test@localhost commit --quiet --allow-empty --message "As it is"
}

@test "every place that names the version names the new one, and no other line changes" {
  run scripts/release 7.8.9
  [ "$status" -eq 0 ]
  [ "$(git diff --name-only)" = "$(scripts/release --places | LC_ALL=C sort)" ]
  # In what people copy and what cargo builds; test data and other crates keep their own numbers.
  [ -z "$(git grep -nE "vllm-perf(@v?|#v|==)${old//./\\.}" -- ':!tests' ':!CHANGELOG.md')" ]
  grep -qx 'version = "7.8.9"' Cargo.toml
  for package in vllm-load vllm-perf vllm-verdict; do
    [ "$(grep -A 1 -x "name = \"$package\"" Cargo.lock | tail -n 1)" = 'version = "7.8.9"' ]
  done
  [ "$(<dist/VERSION)" = 7.8.9 ]
  grep -qx "## 7.8.9 - $(date --utc +%Y-%m-%d)" CHANGELOG.md
  [ "$(git diff --numstat -- dist/VERSION | cut -f 1,2)" = "$(printf '1\t1')" ]
  [ "$(git diff --numstat -- Cargo.toml Cargo.lock | cut -f 1,2 | sort -u)" = "$(printf '3\t3')" ]
  [[ "$output" == *"tags that commit v7.8.9"* ]]
}

@test "the next release goes on from there" {
  scripts/release 7.8.9
  commit
  scripts/release 7.9.0
  [ -z "$(git grep -n '7\.8\.9' -- . ':!CHANGELOG.md' ':!tests')" ]
}

@test "a bad version, an older one, one that is tagged and a tree with changes are refused" {
  for version in '' v7.8.9 7.8 7.8.09 7.8.9-rc1 '7.8.9; ls' 0.0.1; do
    run scripts/release "$version"
    [ "$status" -eq 2 ]
  done
  git tag v7.8.9
  run scripts/release 7.8.9
  [ "$status" -eq 2 ]
  [[ "$output" == *"v7.8.9 was released already"* ]]
  [ -z "$(git status --porcelain)" ]
  echo more >>README.md
  run scripts/release 7.9.0
  [ "$status" -eq 2 ]
  [[ "$output" == *"the tree has changes"* ]]
}
