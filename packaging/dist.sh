#!/usr/bin/env bash
# Builds what is handed out: one static program, a tar ball with its papers, and their checksums.
#
#   packaging/dist.sh [TRIPLE]      into $CARGO_TARGET_DIR/dist, target/dist by default
#
# Reproducible: the same sources, toolchain and C library give the same bytes in any folder. So no path of the build may
# get into the program (--remap-path-prefix), and the tar ball has its names sorted, its owners empty, and the time of
# the last commit (or SOURCE_DATE_EPOCH).
set -euo pipefail
umask 022
export LC_ALL=C TZ=UTC

root="$(cd "$(dirname "$0")/.." && pwd)"
cd "$root"
triple="${1:-$(rustc -vV | sed -n 's/^host: //p')}"
build="$(mkdir -p "${CARGO_TARGET_DIR:-target}" && cd "${CARGO_TARGET_DIR:-target}" && pwd)"
version="$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)"
: "${SOURCE_DATE_EPOCH:=$(git log -1 --format=%ct 2>/dev/null || date +%s -r CHANGELOG.md)}"
export SOURCE_DATE_EPOCH

flags=(-Ctarget-feature=+crt-static -Crelocation-model=static -Clink-arg=-Wl,--icf=all -Clink-arg=-Wl,--build-id=none)
for path in "$build=/build" "${CARGO_HOME:-$HOME/.cargo}=/cargo" "$(rustc --print sysroot)=/rust" "$root=/src"; do
    flags+=("--remap-path-prefix=$path")
done
# Encoded, as a path may hold blanks. With --target the flags are for the program alone, not for what runs during the build.
CARGO_ENCODED_RUSTFLAGS="$(IFS=$'\x1f'; echo "${flags[*]}")" CARGO_INCREMENTAL=0 CARGO_TARGET_DIR="$build" \
    "${CARGO:-cargo}" build --locked --profile packaged --bins --target "$triple"

dist="$build/dist"
name="dcc-mcp-server-$version-${triple%%-*}-linux"
mkdir -p "$dist"
rm -rf "${dist:?}"/*
install -m 0755 "$build/$triple/packaged/dcc-mcp-server" "$dist/dcc-mcp-server"
packaging/install.sh "$dist/dcc-mcp-server" "$dist/$name" /usr/local
tar --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner --format=ustar -C "$dist" -c "$name" \
    | gzip -9n > "$dist/$name.tar.gz"
rm -rf "${dist:?}/$name"
(cd "$dist" && sha256sum dcc-mcp-server "$name.tar.gz" > SHA256SUMS)
(cd "$dist" && ls -l dcc-mcp-server "$name.tar.gz" SHA256SUMS)
