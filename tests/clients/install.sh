#!/usr/bin/env bash
# Installs the clients, at the versions pinned beside this file, into target/clients/; builds the Rust one beside the
# program. What is there already at the right version is left as it is; the network is tried three times.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
into="$here/../../target/clients"
mkdir -p "$into"

retry() {
    local n
    for n in 1 2 3; do
        "$@" && return 0
        echo "attempt $n failed: $*" >&2
        sleep $((n * 2))
    done
    return 1
}

for pins in "$here"/*.txt; do
    name="$(basename "$pins" .txt)"
    if ! cmp -s "$pins" "$into/$name/installed.txt"; then
        echo "installing $(cat "$pins") into target/clients/$name"
        rm -rf "${into:?}/$name"
        python3 -m venv "$into/$name"
        retry "$into/$name/bin/python" -m pip install --quiet --disable-pip-version-check -r "$pins"
        cp "$pins" "$into/$name/installed.txt"
    fi
done

for pins in "$here"/*.json; do
    name="$(basename "$pins" .json)"
    if ! cmp -s "$pins" "$into/$name/installed.json"; then
        echo "installing the packages of $name.json into target/clients/$name"
        rm -rf "${into:?}/$name"
        mkdir -p "$into/$name"
        cp "$pins" "$into/$name/package.json"
        (cd "$into/$name" && retry npm install --silent --no-audit --no-fund --no-package-lock)
        cp "$pins" "$into/$name/installed.json"
    fi
done

retry cargo fetch --quiet --locked --manifest-path "$here/rmcp/Cargo.toml"
cargo build --quiet --locked --manifest-path "$here/rmcp/Cargo.toml" --target-dir "${CARGO_TARGET_DIR:-$here/../../target}"
