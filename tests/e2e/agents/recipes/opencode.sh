export AI_PROXY_TOKEN=sk-of-a-client
cat >opencode.json <<JSON
{
  "\$schema": "https://opencode.ai/config.json",
  "model": "ai-proxy/zhipu/glm-4.6",
  "small_model": "ai-proxy/zhipu/glm-4.5-air",
  "provider": {
    "ai-proxy": {
      "npm": "@ai-sdk/openai-compatible",
      "options": {"baseURL": "http://127.0.0.1:8080/v1", "apiKey": "{env:AI_PROXY_TOKEN}"},
      "models": {"zhipu/glm-4.6": {}, "zhipu/glm-4.5-air": {}}
    }
  }
}
JSON
opencode run "Write hello into hello.txt"
