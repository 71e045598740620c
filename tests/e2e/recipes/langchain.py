from langchain_openai import ChatOpenAI

chat = ChatOpenAI(base_url="http://127.0.0.1:8001/v1", api_key="sk-demo", model="demo/echo")
print(chat.invoke("one two three").content)
for chunk in chat.stream("one two three"):
    print(chunk.content, end="|", flush=True)
