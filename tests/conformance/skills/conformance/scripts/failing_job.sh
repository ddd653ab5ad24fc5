sleep 1
echo '{"jsonrpc":"2.0","result":{"content":[{"type":"text","text":"This job always fails."}],"isError":true}}'
