cat <<'END'
{"jsonrpc":"2.0","result":{"content":[{"type":"text","text":"This tool intentionally returns an error for testing"}],"isError":true}}
END
