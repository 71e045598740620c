from anthropic import Anthropic

client = Anthropic(base_url="http://127.0.0.1:8001", api_key="sk-demo")
ask = {"model": "demo/echo", "max_tokens": 256, "messages": [{"role": "user", "content": "one two three"}]}
print(client.messages.create(**ask).content[0].text)
with client.messages.stream(**ask) as stream:
    for text in stream.text_stream:
        print(text, end="|", flush=True)
