# The client need not wait on an open connection: it comes back for the answer.
echo '{"jsonrpc":"2.0","method":"notifications/io.dcc-mcp/release","params":{"retryMs":200}}'
sleep 1
echo "answered later"
