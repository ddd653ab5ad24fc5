#!/bin/sh
# Sizes of the files in a folder, by ending. Arguments come as words too: --folder PATH
folder=
while [ $# -gt 1 ]; do
  [ "$1" = --folder ] && folder=$2
  shift 2
done
if [ ! -d "$folder" ]; then
  echo 'give "folder", the path of a folder' >&2
  exit 2
fi
cd "$folder" || exit 2
find . -type f -exec ls -ln {} + | awk '
  {
    name = $NF; size = $5; count++; total += size
    sub(/.*\//, "", name)
    ending = match(name, /.\.[A-Za-z0-9]+$/) ? tolower(substr(name, RSTART + 2)) : "other"
    bytes[ending] += size; files[ending]++
  }
  END {
    printf "{\"files\":%d,\"bytes\":%.0f,\"by_type\":{", count, total
    for (ending in bytes) {
      printf "%s\"%s\":{\"files\":%d,\"bytes\":%.0f}", comma, ending, files[ending], bytes[ending]
      comma = ","
    }
    print "}}"
  }'
