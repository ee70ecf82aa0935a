// An agent on Vercel's AI SDK: its model has our tools.
import { createMCPClient } from "@ai-sdk/mcp";
import { StdioMCPTransport } from "@ai-sdk/mcp/mcp-stdio";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, stepCountIs } from "ai";
import { argv, env } from "node:process";

const [command, baseURL] = argv.slice(2);
const client = await createMCPClient({ transport: new StdioMCPTransport({ command, env, stderr: "ignore" }) });
const model = createOpenAICompatible({ name: "scripted", baseURL })("scripted");
const { text } = await generateText({ model, tools: await client.tools(), stopWhen: stepCountIs(20), prompt: "Go." });
await client.close();
console.log(text);
