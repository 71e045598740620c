call() { curl --silent --show-error --fail-with-body --no-buffer -H "Authorization: Bearer sk-demo" "$@"; }
ask='"model": "demo/echo", "messages": [{"role": "user", "content": "one two three"}]'
call http://127.0.0.1:8001/v1/chat/completions --json "{$ask}"
call http://127.0.0.1:8001/v1/chat/completions --json "{$ask, \"stream\": true}"
call http://127.0.0.1:8001/v1/models
