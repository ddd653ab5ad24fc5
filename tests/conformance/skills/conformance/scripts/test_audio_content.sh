cat <<'END'
{"jsonrpc":"2.0","result":{"content":[{"type":"audio","mimeType":"audio/wav","data":"UklGRiwAAABXQVZFZm10IBAAAAABAAEAQB8AAEAfAAABAAgAZGF0YQgAAACAgICAgICAgA=="}]}}
END
