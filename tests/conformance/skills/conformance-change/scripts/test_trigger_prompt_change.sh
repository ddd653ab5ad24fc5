mkdir -p "$DCC_MCP_SKILL_DIR/prompts"
late="$DCC_MCP_SKILL_DIR/prompts/late.prompt.yaml"
if [ -e "$late" ]; then rm -f "$late"; else echo '{name: late, description: Comes late., template: Late.}' >"$late"; fi
# The server looks every two seconds; the signal makes it look now.
kill -HUP "$PPID"
echo "The list of prompts changes."
