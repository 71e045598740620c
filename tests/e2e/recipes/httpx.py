import json, httpx

client = httpx.Client(base_url="http://127.0.0.1:8001/v1", headers={"Authorization": "Bearer sk-demo"}, timeout=300)
ask = {"model": "demo/echo", "messages": [{"role": "user", "content": "one two three"}]}
print(client.post("/chat/completions", json=ask).raise_for_status().json()["choices"][0]["message"]["content"])
with client.stream("POST", "/chat/completions", json={**ask, "stream": True}) as answer:
    for line in answer.raise_for_status().iter_lines():
        if line.startswith("data: {"):
            print(json.loads(line[6:])["choices"][0]["delta"].get("content", ""), end="|", flush=True)
print([model["id"] for model in client.get("/models").raise_for_status().json()["data"]])
