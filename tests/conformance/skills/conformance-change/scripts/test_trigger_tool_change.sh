late="$DCC_MCP_SKILL_DIR/scripts/late.sh"
if [ -e "$late" ]; then rm -f "$late"; else echo 'echo late' >"$late"; fi
# The server looks every two seconds; the signal makes it look now.
kill -HUP "$PPID"
echo "The list of tools changes."
