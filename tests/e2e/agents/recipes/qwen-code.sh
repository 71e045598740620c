export OPENAI_BASE_URL=http://127.0.0.1:8080/v1 OPENAI_API_KEY=sk-of-a-client OPENAI_MODEL=zhipu/glm-4.6
qwen --auth-type openai --yolo --prompt "Write hello into hello.txt"
