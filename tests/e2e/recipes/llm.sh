cat >"$(dirname "$(llm logs path)")/extra-openai-models.yaml" <<YAML
- {model_id: echo, model_name: demo/echo, api_base: "http://127.0.0.1:8001/v1", api_key_name: ai-proxy}
YAML
llm keys set ai-proxy --value sk-demo
llm -m echo --no-stream "one two three"
llm -m echo "one two three"
