cat <<'END'
{"jsonrpc":"2.0","result":{"content":[{"type":"resource","resource":{"uri":"test://embedded-resource","mimeType":"text/plain","text":"This is an embedded resource content."}}]}}
END
