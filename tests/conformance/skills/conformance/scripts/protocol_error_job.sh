echo '{"jsonrpc":"2.0","error":{"code":-32603,"message":"This job breaks the protocol."}}'
