log() {
    printf '{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":"%s"}}\n' "$1"
}
log "Tool execution started"
sleep 0.05
log "Tool processing data"
sleep 0.05
log "Tool execution completed"
echo "The tool logged three times."
