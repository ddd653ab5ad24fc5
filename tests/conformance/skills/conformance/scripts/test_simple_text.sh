cat <<'END'
{"jsonrpc":"2.0","result":{"content":[{"type":"text","text":"This is a simple text response for testing."}]}}
END
