#!/bin/sh
# File names that make trouble. Arguments come as words too: --folder PATH

# Text as a JSON string.
quoted() {
  printf '"%s"' "$(printf '%s' "$1" | tr -d '[:cntrl:]' | sed 's/[\\"]/\\&/g')"
}

# log LEVEL TEXT: a log message for whoever called.
log() {
  printf '{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"%s","logger":"check_names","data":%s}}\n' \
    "$1" "$(quoted "$2")"
}

# progress DONE TOTAL
progress() {
  printf '{"jsonrpc":"2.0","method":"notifications/progress","params":{"progress":%d,"total":%d}}\n' "$1" "$2"
}

folder=
while [ $# -gt 1 ]; do
  [ "$1" = --folder ] && folder=$2
  shift 2
done
if [ ! -d "$folder" ]; then
  echo 'give "folder", the path of a folder' >&2
  exit 2
fi

total=0
for path in "$folder"/*; do
  [ -f "$path" ] && total=$((total + 1))
done
log info "$total files in $folder"

done=0
bad=0
for path in "$folder"/*; do
  [ -f "$path" ] || continue
  name=${path##*/}
  what=
  case $name in
    *' '*) what='has a blank' ;;
    *.*[A-Z]*) what='has a capital letter in its ending' ;;
    *.*) ;;
    *) what='has no ending' ;;
  esac
  if [ -n "$what" ]; then
    bad=$((bad + 1))
    log warning "$name $what"
  fi
  done=$((done + 1))
  progress "$done" "$total"
done
printf '{"files":%d,"bad":%d}\n' "$total" "$bad"
