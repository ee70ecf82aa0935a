// Connects with Vercel's AI SDK so many times, so many at once; prints how many tools each got, or its error.
import { createMCPClient } from "@ai-sdk/mcp";
import { StdioMCPTransport } from "@ai-sdk/mcp/mcp-stdio";
import { argv, env } from "node:process";

const [command, all, atOnce] = argv.slice(2);
const seen = [];

async function connect() {
  try {
    const client = await createMCPClient({ transport: new StdioMCPTransport({ command, env, stderr: "ignore" }) });
    const tools = await client.tools();
    await client.close();
    return Object.keys(tools).length;
  } catch (error) {
    return String(error);
  }
}

async function connectInTurn() {
  while (seen.length < Number(all)) seen[seen.push(null) - 1] = await connect();
}

await Promise.all(Array.from({ length: Number(atOnce) }, connectInTurn));
console.log(JSON.stringify(seen));
