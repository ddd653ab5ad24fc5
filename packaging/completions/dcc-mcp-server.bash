# Made from src/config/flags.rs: UPDATE=1 cargo test --lib papers
_dcc_mcp_server() {
    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} verb=${COMP_WORDS[1]} flags
    # bash takes = for a word of its own.
    if [ "$word" = = ]; then word=; elif [ "$before" = = ]; then before=${COMP_WORDS[COMP_CWORD-2]}; fi
    case $before in
        --host) COMPREPLY=(); return ;;
        --advertise-host) COMPREPLY=(); return ;;
        --mcp-port) COMPREPLY=(); return ;;
        --gateway-port) COMPREPLY=(); return ;;
        --registry-dir) compopt -o filenames; COMPREPLY=($(compgen -d -- "$word")); return ;;
        --stale-timeout|--stale-timeout-secs) COMPREPLY=(); return ;;
        --heartbeat-interval|--heartbeat-secs) COMPREPLY=(); return ;;
        --server-name) COMPREPLY=(); return ;;
        --instance-id) COMPREPLY=(); return ;;
        --dcc) COMPREPLY=(); return ;;
        --dcc-version) COMPREPLY=(); return ;;
        --scene) compopt -o filenames; COMPREPLY=($(compgen -f -- "$word")); return ;;
        --display-name) COMPREPLY=(); return ;;
        --skill-paths) compopt -o filenames; COMPREPLY=($(compgen -d -- "$word")); return ;;
        --load-skills) COMPREPLY=(); return ;;
        --tool-list) COMPREPLY=($(compgen -W "full meta" -- "$word")); return ;;
        --call-timeout) COMPREPLY=(); return ;;
        --drain-timeout) COMPREPLY=(); return ;;
        --max-connections) COMPREPLY=(); return ;;
        --auth-token-file) compopt -o filenames; COMPREPLY=($(compgen -f -- "$word")); return ;;
        --allowed-origins) COMPREPLY=(); return ;;
        --allowed-hosts) COMPREPLY=(); return ;;
        --log-level) COMPREPLY=($(compgen -W "error warn info debug trace" -- "$word")); return ;;
        --log-dir) compopt -o filenames; COMPREPLY=($(compgen -d -- "$word")); return ;;
        --log-max-size) COMPREPLY=(); return ;;
        --log-max-files) COMPREPLY=(); return ;;
    esac
    case $verb in
        status) flags="--host --gateway-port --registry-dir --stale-timeout --stale-timeout-secs --auth-token-file --json --help -h --version -V" ;;
        healthcheck) flags="--host --mcp-port --gateway-port --help -h --version -V" ;;
        *) flags="--host --advertise-host --mcp-port --gateway-port --registry-dir --stale-timeout --stale-timeout-secs --heartbeat-interval --heartbeat-secs --server-name --instance-id --dcc --dcc-version --scene --display-name --skill-paths --load-skills --tool-list --call-timeout --drain-timeout --max-connections --auth-token-file --allowed-origins --allowed-hosts --log-level --log-file --log-dir --log-max-size --log-max-files --help -h --version -V" ;;
    esac
    [ "$COMP_CWORD" -eq 1 ] && flags="healthcheck status $flags"
    COMPREPLY=($(compgen -W "$flags" -- "$word"))
}
complete -F _dcc_mcp_server dcc-mcp-server
