export OPENAI_API_BASE=http://127.0.0.1:8080/v1 OPENAI_API_KEY=sk-of-a-client
aider --model openai/zhipu/glm-4.6 --edit-format whole --no-git --yes-always --no-check-update --analytics-disable \
    --no-show-model-warnings --no-show-release-notes --message "Write hello into hello.txt" hello.txt
