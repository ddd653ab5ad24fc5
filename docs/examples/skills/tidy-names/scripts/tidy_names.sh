#!/bin/sh
# Renames files with blanks in their names, if the user agrees. Arguments come as words too: --folder PATH

# Text as a JSON string.
quoted() {
  printf '"%s"' "$(printf '%s' "$1" | tr -d '[:cntrl:]' | sed 's/[\\"]/\\&/g')"
}

# end SUCCESS TEXT: the result.
end() {
  printf '{"success":%s,"message":%s}\n' "$1" "$(quoted "$2")"
  exit 0
}

# ask KEY MESSAGE PROPERTIES: a form for the user, of which all fields are needed. $answer is the answer, in one line without
# blanks between the tokens of its JSON.
ask() {
  printf '{"jsonrpc":"2.0","id":"%s","method":"elicitation/create","params":{"message":%s,"requestedSchema":{"type":"object","properties":%s}}}\n' \
    "$1" "$(quoted "$2")" "$3"
  read -r answer || exit 1 # the call has ended
}

read -r _ # the arguments, which are words too
[ "$1" = --folder ] && [ -d "$2" ] || end false 'give "folder", the path of a folder'
cd "$2" || exit 1

count=0
for name in *' '*; do
  [ -f "$name" ] && count=$((count + 1))
done
[ "$count" -gt 0 ] || end true "no file has a blank in its name"

ask sign "Rename $count files in $2? What is to stand for a blank?" \
  '{"sign":{"type":"string","title":"Instead of a blank","enum":["_","-"],"default":"_"}}'
case $answer in
  *'"error":'*) end false "$count files have blanks in their names, and the user cannot be asked" ;;
  *'"action":"accept"'*'"sign":"-"'* | *'"sign":"-"'*'"action":"accept"'*) sign=- ;;
  *'"action":"accept"'*) sign=_ ;;
  *) end false "the user did not want it: nothing is renamed" ;;
esac

done=0
for name in *' '*; do
  new=$(printf '%s' "$name" | tr ' ' "$sign")
  [ -f "$name" ] && [ ! -e "$new" ] && mv -- "$name" "$new" && done=$((done + 1))
done
end true "$done of $count files are renamed"
