from openai import OpenAI

client = OpenAI(base_url="http://127.0.0.1:8001/v1", api_key="sk-demo")
ask = {"model": "demo/echo", "messages": [{"role": "user", "content": "one two three"}]}
print(client.chat.completions.create(**ask).choices[0].message.content)
for chunk in client.chat.completions.create(**ask, stream=True):
    print(chunk.choices[0].delta.content or "", end="|", flush=True)
print([model.id for model in client.models.list()])
