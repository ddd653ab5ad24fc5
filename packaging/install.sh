#!/usr/bin/env bash
# Puts the program and all that belongs to it below a folder: `make install` and the tar ball have the same files.
#
#   packaging/install.sh PROGRAM FOLDER PREFIX
#
# FOLDER is where files are written, PREFIX where they will be found; the units name the program by it.
set -euo pipefail
umask 022

program=$1 to=$2 prefix=$3
here="$(cd "$(dirname "$0")" && pwd)"

file() { # FROM TO MODE
    install -D -m "${3:-0644}" "$here/$1" "$to/$2"
}

install -D -m 0755 "$program" "$to/bin/dcc-mcp-server"
file man/dcc-mcp-server.1 share/man/man1/dcc-mcp-server.1
file completions/dcc-mcp-server.bash share/bash-completion/completions/dcc-mcp-server
file completions/_dcc-mcp-server share/zsh/site-functions/_dcc-mcp-server
file completions/dcc-mcp-server.fish share/fish/vendor_completions.d/dcc-mcp-server.fish
file ../LICENSE share/doc/dcc-mcp-server/LICENSE
file ../CHANGELOG.md share/doc/dcc-mcp-server/CHANGELOG.md
for unit in dcc-mcp-gateway.service dcc-mcp-gateway.socket dcc-mcp-instance@.service; do
    file "systemd/$unit" "lib/systemd/system/$unit"
    sed -i "s|/usr/local/bin/dcc-mcp-server|$prefix/bin/dcc-mcp-server|" "$to/lib/systemd/system/$unit"
done
for example in gateway.env instance.env; do
    file "systemd/$example" "share/doc/dcc-mcp-server/$example"
done
