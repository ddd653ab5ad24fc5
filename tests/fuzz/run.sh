#!/usr/bin/env bash
# Runs fuzz targets one after the other, each for so many seconds, and says at the end what came of each.
#
#   tests/fuzz/run.sh SECONDS [TARGET ...]        all targets if none is named
#
# libFuzzer needs a nightly toolchain beside the stable one (`rustup toolchain install nightly`), and cargo-fuzz, which is
# installed if missing. What it learns goes to target/fuzz/corpus/, so that the next run begins where this one ended; the
# log of each target is target/fuzz/<target>.log. An input that breaks a target is left in tests/fuzz/artifacts/<target>/:
# `cargo +nightly fuzz tmin --fuzz-dir tests/fuzz TARGET FILE` makes it small, and in tests/fuzz/corpus/<target>/ the
# tests replay it for ever.
set -uo pipefail
cd "$(dirname "$0")/../.."

[ $# -gt 0 ] || { sed -n '2,5s/^# \?//p' "$0" >&2; exit 2; }
seconds=$1
shift
cargo +nightly --version >/dev/null 2>&1 || {
    echo "fuzzing needs a nightly toolchain: rustup toolchain install nightly" >&2
    exit 1
}
command -v cargo-fuzz >/dev/null || cargo install --locked cargo-fuzz || exit 1
out="${CARGO_TARGET_DIR:-target}/fuzz"
[ $# -gt 0 ] || set -- $(basename -s .rs tests/fuzz/targets/*.rs)

# A time-out is a finding, and so is more memory than the largest input could explain.
bounds=(-timeout=10 -rss_limit_mb=1024 -malloc_limit_mb=256)
summary=""
outcome=0
for target in "$@"; do
    found="$out/corpus/$target"
    log="$out/$target.log"
    mkdir -p "$found"
    # Heads are bounded at 16 KiB: the inputs go a little beyond. Elsewhere short inputs reach all there is.
    case $target in *_head) length=17000 ;; *) length=4096 ;; esac
    cargo +nightly fuzz run --fuzz-dir tests/fuzz --target-dir "$out" "$target" "$found" "tests/fuzz/corpus/$target" -- \
        "-max_total_time=$seconds" "-max_len=$length" "${bounds[@]}" -print_final_stats=1 2>&1 | tee "$log"
    ended=${PIPESTATUS[0]}
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    case $ended in
        0) findings="no finding" ;;
        *) findings="FAILED, see $log"; outcome=1 ;;
    esac
    summary+="$target: ${runs:-no} executions in at most $seconds s, $findings"$'\n'
done
printf '\n%s' "$summary"
exit $outcome
