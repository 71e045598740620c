import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, streamText } from "ai";

const proxy = createOpenAICompatible({ name: "proxy", baseURL: "http://127.0.0.1:8001/v1", apiKey: "sk-demo" });
const ask = { model: proxy("demo/echo"), prompt: "one two three" };
console.log((await generateText(ask)).text);
for await (const text of streamText(ask).textStream) process.stdout.write(`${text}|`);
