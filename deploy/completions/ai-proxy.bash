# Made by tests/it/generated.rs from `ai-proxy --help`.
_ai_proxy() {
    local word=${COMP_WORDS[COMP_CWORD]} words
    COMPREPLY=()
    case ${COMP_WORDS[COMP_CWORD - 1]} in
    --config) mapfile -t COMPREPLY < <(compgen -f -- "$word"); return ;;
    --port) return ;;
    esac
    case ${COMP_WORDS[1]} in
    check) words="--probe --config --help" ;;
    demo) words="--port --help" ;;
    *) words="check demo --config --version --help" ;;
    esac
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word")
}
complete -F _ai_proxy ai-proxy
