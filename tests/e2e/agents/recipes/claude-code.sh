export ANTHROPIC_BASE_URL=http://127.0.0.1:8080 ANTHROPIC_AUTH_TOKEN=sk-of-a-client
export ANTHROPIC_MODEL=zhipu/glm-4.6 ANTHROPIC_DEFAULT_OPUS_MODEL=zhipu/glm-4.6
export ANTHROPIC_DEFAULT_SONNET_MODEL=zhipu/glm-4.6 ANTHROPIC_DEFAULT_HAIKU_MODEL=zhipu/glm-4.5-air
claude --print "Write hello into hello.txt" --allowedTools Write Read Agent
