# The plugin's hooks, sourced by bash as the agent sources them. `tests/real/plugin` runs this file.

setup() {
  plugin="$(cd "$BATS_TEST_DIRNAME/../.." && pwd)"
  cd "$BATS_TEST_TMPDIR" || return
  mkdir agent home
  ln -s "$AGENT_UNDER_TEST" agent/buildkite-agent
}

# Runs hook $1 of a build with labels $2 and the plugin's options $3 (a JSON object), with what the agent sets.
hook() {
  local flattened=() name value
  while IFS=$'\t' read -r name value; do
    flattened+=("BUILDKITE_PLUGIN_VLLM_PERF_$name=$value")
  done < <(jq -r 'to_entries[] | [(.key | ascii_upcase | gsub("-"; "_")), (.value | tostring)] | @tsv' <<<"$3")
  env --ignore-environment "PATH=$BATS_TEST_TMPDIR/agent:$PATH" "HOME=$BATS_TEST_TMPDIR/home" CI=true BUILDKITE=true \
    BUILDKITE_AGENT_ACCESS_TOKEN=bkaj_secret "BUILDKITE_FAKE_AGENT_LOG=$BATS_TEST_TMPDIR/agent.jsonl" \
    BUILDKITE_REPO=https://github.com/vllm-project/vllm.git BUILDKITE_PULL_REQUEST_REPO=https://github.com/vllm-project/vllm.git \
    BUILDKITE_PULL_REQUEST=2 BUILDKITE_PULL_REQUEST_BASE_BRANCH=main "BUILDKITE_PULL_REQUEST_LABELS=$2" BUILDKITE_BRANCH=changes \
    BUILDKITE_COMMIT=1da94e673c257373280026f75ceb4effac80e892 BUILDKITE_SOURCE=webhook BUILDKITE_PIPELINE_DEFAULT_BRANCH=main \
    BUILDKITE_ORGANIZATION_SLUG=vllm BUILDKITE_PIPELINE_SLUG=ci "BUILDKITE_STEP_KEY=${STEP_KEY:-perf-cpu}" BUILDKITE_STEP_ID=s1 BUILDKITE_JOB_ID=j1 \
    BUILDKITE_BUILD_ID=b1 BUILDKITE_BUILD_NUMBER=7 BUILDKITE_BUILD_URL=https://buildkite.com/vllm/ci/builds/7 \
    BUILDKITE_PLUGIN_NAME=VLLM_PERF "BUILDKITE_PLUGIN_CONFIGURATION=$3" "${flattened[@]}" ${more[@]+"${more[@]}"} \
    bash -c "source '$plugin/hooks/$1'"
}

# The plugin's options on the simulated target, with $1 (a JSON object) over them.
options() {
  jq --null-input --compact-output --arg suite "$plugin/examples/suite" --arg bin "$VLLM_PERF_UNDER_TEST" --argjson more "$1" '{
    $suite, $bin, device: "cpu", base: "sim:itl=4ms", head: "sim:itl=6ms", pairs: 3,
    only: "serving_tinyllama_tp1_random_64_16", install: "path"} + $more'
}

# The agent was told what $1 (a jq expression) describes, once.
told() {
  jq --slurp --exit-status "map(select($1)) | length == 1" agent.jsonl
}

@test "a labelled pull request is benchmarked, annotated, and fails on its regression" {
  run hook command perf-benchmarks,ready "$(options '{}')"
  [ "$status" -eq 1 ]
  [ "$(jq -r .verdict vllm-perf-out/comparison.json)" = regressed ]
  told '[.argv[0]] == ["annotate"] and .argv[1] == "--context" and (.argv[2] | test("^vllm-perf-[0-9a-f]{12}$"))
    and .argv[3:] == ["--style", "error"] and (.stdin | contains("regressed"))'
  told '.argv[:2] == ["meta-data", "set"] and (.argv[2] | startswith("vllm-perf-verdict-")) and .stdin == "regressed"'
  told '.argv == ["artifact", "upload", "vllm-perf-out/**/*"]'
  jq --slurp --exit-status 'length == 3 and all(.refused == null)' agent.jsonl
  [[ "$output" != *bkaj_secret* ]]
}

@test "with a token the labels are those of now, and the pull request gets one comment" {
  "$GITHUB_UNDER_TEST" --repository vllm-project/vllm --pull-request 2 --head-sha 1da94e673c257373280026f75ceb4effac80e892 \
    --head-branch changes --label perf-benchmarks --label ready >github.log 3>&- &
  github=$!
  for _ in $(seq 50); do
    grep -qs '^http://' github.log && break
    sleep 0.1
  done
  more=("GITHUB_API_URL=$(head -n 1 github.log)" MY_TOKEN=ghs_workflow0123456789)
  run hook command "" "$(options '{"github-token-env": "MY_TOKEN", "fail-on": "never"}')"
  kill "$github"
  [ "$status" -eq 0 ]
  [[ "$output" == *'comment: created http'* && "$output" != *ghs_workflow0123456789* ]]
  grep '^{' github.log | jq --slurp --exit-status 'map(select(.method != "GET")) | map("\(.method) \(.status)") == ["POST 201"]'
  run grep -rqF ghs_workflow0123456789 vllm-perf-out agent.jsonl
  [ "$status" -eq 1 ]
}

@test "fail-on and out are the step's options" {
  run hook command perf-benchmarks,ready "$(options '{"fail-on": "never", "out": "perf/out"}')"
  [ "$status" -eq 0 ]
  [ -s perf/out/comparison.json ]
  [ ! -e vllm-perf-out ]
}

@test "without ready nothing is measured or published, not even an old report, and the step passes" {
  mkdir vllm-perf-out
  echo '{}' >vllm-perf-out/comparison.json
  run hook command perf-benchmarks "$(options '{}')"
  [ "$status" -eq 0 ]
  [[ "$output" == *ready* ]]
  [ "$(<vllm-perf-out/comparison.json)" = '{}' ]
  [ ! -e agent.jsonl ]
}

@test "a retried job replaces its annotation, and a step of another key has one of its own" {
  run hook command perf-benchmarks,ready "$(options '{"pairs": 1, "fail-on": "never"}')"
  [ "$status" -eq 0 ]
  run hook command perf-benchmarks,ready "$(options '{"pairs": 1, "fail-on": "never"}')"
  [ "$status" -eq 0 ]
  [ "$(jq --slurp 'map(select(.argv[0] == "annotate") | .argv[2]) | [length, (unique | length)] == [2, 1]' agent.jsonl)" = true ]
  STEP_KEY=perf-other run hook command perf-benchmarks,ready "$(options '{"pairs": 1, "fail-on": "never"}')"
  [ "$status" -eq 0 ]
  [ "$(jq --slurp 'map(select(.argv[0] == "annotate") | .argv[2]) | [length, (unique | length)] == [3, 2]' agent.jsonl)" = true ]
  jq --slurp --exit-status 'all(.refused == null)' agent.jsonl
}

@test "an option that plugin.yml does not have is a mistake that is named" {
  run hook command perf-benchmarks,ready "$(options '{"devise": "cpu"}')"
  [ "$status" -eq 2 ]
  [[ "$output" == *devise*device* ]]
  [ ! -e vllm-perf-out ]
}

@test "a binary that is not there is a mistake that is named" {
  run hook command perf-benchmarks,ready "$(options '{"bin": "/nowhere/vllm-perf"}')"
  [ "$status" -eq 2 ]
  [[ "$output" == */nowhere/vllm-perf* ]]
}

@test "what was measured is published where head could not start, and the step fails with that code" {
  run hook command perf-benchmarks,ready "$(options '{"head": "sim:startup=1m", "server-timeout": "2s", "pairs": 1, "fail-on": "never"}')"
  [ "$status" -eq 3 ]
  [ "$(jq -r .verdict vllm-perf-out/comparison.json)" = "not measured" ]
  told '.argv[0] == "annotate" and .argv[3:] == ["--style", "warning"] and (.stdin | contains("not measured"))'
}

@test "pre-exit removes the containers of this run, and no others" {
  cat >agent/docker <<'DOCKER'
#!/usr/bin/env bash
echo "$*" >>docker.log
case "$1 ${!#}" in
  ps*) printf '%s\n' ours theirs ;;
  "inspect ours") echo "$PWD/perf/out/head/01" ;;
  "inspect theirs") echo "$PWD/perf/output/head/01" ;;
esac
DOCKER
  chmod +x agent/docker
  run hook pre-exit perf-benchmarks,ready "$(options '{"out": "perf/out"}')"
  [ "$status" -eq 0 ]
  [ "$(grep '^ps' docker.log)" = "ps --all --quiet --filter label=vllm-perf.run" ]
  [ "$(grep '^rm' docker.log)" = "rm --force --volumes ours" ]
}

@test "pre-exit cleans up the output folder that VLLM_PERF_OUT names, as the step does" {
  cat >agent/docker <<'DOCKER'
#!/usr/bin/env bash
echo "$*" >>docker.log
case "$1" in
  ps) echo ours ;;
  inspect) echo "$PWD/perf/out/head/01" ;;
esac
DOCKER
  chmod +x agent/docker
  more=(VLLM_PERF_OUT=perf/out)
  run hook pre-exit perf-benchmarks,ready "$(options '{}')"
  [ "$status" -eq 0 ]
  [ "$(grep '^rm' docker.log)" = "rm --force --volumes ours" ]
}

@test "pre-exit passes where there is nothing to clean up" {
  run hook pre-exit perf-benchmarks,ready "$(options '{}')"
  [ "$status" -eq 0 ]
}
