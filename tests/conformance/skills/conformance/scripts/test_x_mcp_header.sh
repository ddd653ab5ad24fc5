cat <<'END'
{"jsonrpc":"2.0","result":{"content":[{"type":"text","text":"header and argument agree"}]}}
END
