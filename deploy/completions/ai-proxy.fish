# Made by tests/it/generated.rs from `ai-proxy --help`.
complete -c ai-proxy -f
complete -c ai-proxy -n 'not __fish_seen_subcommand_from check demo' -a check -d 'check the configuration, print a summary without secrets; --probe also asks its providers'
complete -c ai-proxy -n 'not __fish_seen_subcommand_from check demo' -a demo -d 'serve a built-in provider on 127.0.0.1:8001: no file, no key, no internet'
complete -c ai-proxy -n 'not __fish_seen_subcommand_from check demo' -l config -r -F
complete -c ai-proxy -n 'not __fish_seen_subcommand_from check demo' -l version
complete -c ai-proxy -n 'not __fish_seen_subcommand_from check demo' -l help
complete -c ai-proxy -n '__fish_seen_subcommand_from check' -l probe
complete -c ai-proxy -n '__fish_seen_subcommand_from check' -l config -r -F
complete -c ai-proxy -n '__fish_seen_subcommand_from demo' -l port -x
