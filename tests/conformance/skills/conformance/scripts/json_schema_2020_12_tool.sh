cat <<'END'
{"jsonrpc":"2.0","result":{"content":[{"type":"text","text":"valid"}]}}
END
