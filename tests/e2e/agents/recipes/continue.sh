cat >config.yaml <<YAML
name: ai-proxy
version: 1.0.0
schema: v1
models:
  - name: glm
    provider: openai
    model: zhipu/glm-4.6
    apiBase: http://127.0.0.1:8080/v1
    apiKey: sk-of-a-client
    roles: [chat, edit, apply]
YAML
cn --config config.yaml --auto --print "Write hello into hello.txt"
