#!/usr/bin/env bash
# Installs the official clients, at the versions pinned beside this file, into target/clients/.
# What is there already at the right version is left as it is; the network is tried three times.
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

for name in python-1 python-2; do
    if ! cmp -s "$here/$name.txt" "$into/$name/installed.txt"; then
        echo "installing $(cat "$here/$name.txt") into target/clients/$name"
        rm -rf "${into:?}/$name"
        python3 -m venv "$into/$name"
        retry "$into/$name/bin/python" -m pip install --quiet --disable-pip-version-check -r "$here/$name.txt"
        cp "$here/$name.txt" "$into/$name/installed.txt"
    fi
done

if ! cmp -s "$here/package.json" "$into/node/installed.json"; then
    echo "installing the TypeScript clients into target/clients/node"
    rm -rf "${into:?}/node"
    mkdir -p "$into/node"
    cp "$here/package.json" "$into/node/package.json"
    (cd "$into/node" && retry npm install --silent --no-audit --no-fund --no-package-lock)
    cp "$here/package.json" "$into/node/installed.json"
fi
