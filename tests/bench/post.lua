-- wrk: POSTs the body and the headers that run.py put into the environment; prints the figures as one JSON line.
wrk.method = "POST"
wrk.body = os.getenv("BENCH_BODY")
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Accept"] = "application/json, text/event-stream"
local session = os.getenv("BENCH_SESSION")
if session and session ~= "" then
    wrk.headers["Mcp-Session-Id"] = session
    wrk.headers["MCP-Protocol-Version"] = "2025-06-18"
end

function done(summary, latency, _)
    local errors = summary.errors
    local failed = errors.connect + errors.read + errors.write + errors.status + errors.timeout
    io.write(string.format(
        '\nBENCH {"requests":%d,"seconds":%.6f,"bytes":%d,"errors":%d,"p50":%.1f,"p99":%.1f}\n',
        summary.requests, summary.duration / 1e6, summary.bytes, failed, latency:percentile(50), latency:percentile(99)))
end
