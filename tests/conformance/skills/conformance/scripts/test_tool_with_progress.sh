for done in 0 50 100; do
    printf '{"jsonrpc":"2.0","method":"notifications/progress","params":{"progress":%d,"total":100}}\n' "$done"
    sleep 0.05
done
echo "The tool told its progress."
