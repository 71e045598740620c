import OpenAI from "openai";

const client = new OpenAI({ baseURL: "http://127.0.0.1:8001/v1", apiKey: "sk-demo" });
const ask = { model: "demo/echo", messages: [{ role: "user", content: "one two three" }] };
console.log((await client.chat.completions.create(ask)).choices[0].message.content);
const stream = await client.chat.completions.create({ ...ask, stream: true });
for await (const chunk of stream) process.stdout.write(`${chunk.choices[0]?.delta?.content ?? ""}|`);
for await (const model of client.models.list()) console.log(model.id);
