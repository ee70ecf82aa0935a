// A client on the TypeScript SDK: lists the tools, makes the calls that it is given, prints what came of each.
import { env, argv } from "node:process";

// The server is a command, or the URL of one over HTTP.
const [client, module, server, calls] = argv.slice(2);
const { Client } = await import(client);
const { StdioClientTransport, StreamableHTTPClientTransport } = await import(module);

const host = new Client({ name: "scripted", version: "1.0.0" });
const transport = server.startsWith("http://")
  ? new StreamableHTTPClientTransport(new URL(server))
  : new StdioClientTransport({ command: server, env, stderr: "ignore" });
await host.connect(transport);
const { tools } = await host.listTools();
const results = [];
for (const [name, args] of JSON.parse(calls)) results.push(await host.callTool({ name, arguments: args }));
await host.close();
console.log(JSON.stringify({ tools: tools.map((tool) => tool.name), results }));
