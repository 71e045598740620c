export AI_PROXY_TOKEN=sk-of-a-client
mkdir -p ~/.codex && cat >~/.codex/config.toml <<TOML
model = "zhipu/glm-4.6"
model_provider = "ai-proxy"

[model_providers.ai-proxy]
name = "ai-proxy"
base_url = "http://127.0.0.1:8080/v1"
env_key = "AI_PROXY_TOKEN"
TOML
codex exec --skip-git-repo-check --sandbox workspace-write "Write hello into hello.txt"
