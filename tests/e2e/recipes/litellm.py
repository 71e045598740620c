import litellm

proxy = {"api_base": "http://127.0.0.1:8001/v1", "api_key": "sk-demo"}
ask = {"model": "openai/demo/echo", "messages": [{"role": "user", "content": "one two three"}]}
print(litellm.completion(**ask, **proxy).choices[0].message.content)
for chunk in litellm.completion(**ask, **proxy, stream=True):
    print(chunk.choices[0].delta.content or "", end="|", flush=True)
print(litellm.get_valid_models(check_provider_endpoint=True, custom_llm_provider="openai", **proxy))
