#!/usr/bin/env bash
# Builds what is handed out: one static program, a tar ball with its papers, and their checksums.
#
#   packaging/dist.sh [TRIPLE]      into $CARGO_TARGET_DIR/dist, target/dist by default
#
# The standard library is built with the program, for size, where a toolchain with its sources is at hand: the one on the
# path (rustup component add rust-src), else Debian's (rustc-web cargo-web rust-web-src). TRIPLE may be
# x86_64-unknown-linux-musl: musl is the toolchain's own (rustup target add), else Debian's (musl-tools).
# docs/decisions/0006-dist-size.md has what each brings. Nothing is installed here.
#
# Reproducible: the same sources, toolchain and C library give the same bytes in any folder. So no path of the build may
# get into the program (--remap-path-prefix), and the tar ball has its names sorted, its owners empty, and the time of
# the last commit (or SOURCE_DATE_EPOCH).
set -euo pipefail
umask 022
export LC_ALL=C TZ=UTC

root="$(cd "$(dirname "$0")/.." && pwd)"
cd "$root"
build="$(mkdir -p "${CARGO_TARGET_DIR:-target}" && cd "${CARGO_TARGET_DIR:-target}" && pwd)"
version="$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)"
: "${SOURCE_DATE_EPOCH:=$(git log -1 --format=%ct 2>/dev/null || date +%s -r CHANGELOG.md)}"
export SOURCE_DATE_EPOCH

has_sources() { [ -e "$("$1" --print sysroot)/lib/rustlib/src/rust/library/std/Cargo.toml" ]; }
rustc="${RUSTC:-$(command -v rustc || echo /usr/bin/rustc)}" cargo="${CARGO:-cargo}"
if ! has_sources "$rustc" && [ -z "${RUSTC:-}" ] && [ -x /usr/bin/rustc ] && has_sources /usr/bin/rustc; then
    rustc=/usr/bin/rustc cargo=/usr/bin/cargo
fi
triple="${1:-$("$rustc" -vV | sed -n 's/^host: //p')}"

# A panic ends the process (`panic = "abort"`): nothing unwinds, so that the tables for it can go.
flags=(-Ctarget-feature=+crt-static -Crelocation-model=static -Cforce-unwind-tables=no -Clink-arg=-Wl,--build-id=none)
for path in "$build=/build" "${CARGO_HOME:-$HOME/.cargo}=/cargo" "$("$rustc" --print sysroot)=/rust" "$root=/src"; do
    flags+=("--remap-path-prefix=$path")
done
if [[ $triple == *-musl ]]; then
    own="$("$rustc" --print target-libdir --target "$triple")/self-contained"
    if [ ! -e "$own/libc.a" ] && ! { command -v musl-gcc >/dev/null && has_sources "$rustc"; }; then
        echo "dist.sh: $triple needs 'rustup target add $triple', or Debian's packages" \
            "rustc-web cargo-web rust-web-src musl-tools" >&2
        exit 1
    fi
    [ -e "$own/libc.a" ] || flags+=(-Clinker=musl-gcc -Clink-self-contained=no)
fi
options=(--locked --profile packaged --bins --target "$triple")
if has_sources "$rustc"; then
    # Without its feature "backtrace": what reads debugging symbols is of no use in a program that has none.
    options+=(-Zbuild-std=std,panic_abort -Zbuild-std-features=optimize_for_size)
    export RUSTC_BOOTSTRAP=1
    if [[ $triple == *-musl ]]; then
        # The library asks for an unwinder all the same, for backtraces that without that feature are never printed. It
        # gets a linker script in place of one, by which a call would end the process.
        mkdir -p "$build/unwinder"
        echo "_Unwind_Backtrace = abort; _Unwind_GetIP = abort;" > "$build/unwinder/libunwind.a"
        flags+=("-Lnative=$build/unwinder")
    fi
else
    echo "dist.sh: the standard library comes as it is, since its sources are not at hand: the program gets larger" >&2
fi
# Encoded, as a path may hold blanks. With --target the flags are for the program alone, not for what runs during the build.
RUSTC="$rustc" CARGO_ENCODED_RUSTFLAGS="$(IFS=$'\x1f'; echo "${flags[*]}")" CARGO_INCREMENTAL=0 CARGO_TARGET_DIR="$build" \
    "$cargo" build "${options[@]}"

dist="$build/dist"
name="dcc-mcp-server-$version-${triple%%-*}-linux"
[[ $triple != *-musl ]] || name+=-musl
mkdir -p "$dist"
rm -rf "${dist:?}"/*
install -m 0755 "$build/$triple/packaged/dcc-mcp-server" "$dist/dcc-mcp-server"
packaging/install.sh "$dist/dcc-mcp-server" "$dist/$name" /usr/local
tar --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner --format=ustar -C "$dist" -c "$name" \
    | gzip -9n > "$dist/$name.tar.gz"
rm -rf "${dist:?}/$name"
(cd "$dist" && sha256sum dcc-mcp-server "$name.tar.gz" > SHA256SUMS)
(cd "$dist" && ls -l dcc-mcp-server "$name.tar.gz" SHA256SUMS)
