// A client on the TypeScript SDK: lists the tools, makes the calls that it is given, prints what came of each.
import { env, argv } from "node:process";

const [client, stdio, command, calls] = argv.slice(2);
const { Client } = await import(client);
const { StdioClientTransport } = await import(stdio);

const host = new Client({ name: "scripted", version: "1.0.0" });
await host.connect(new StdioClientTransport({ command, env, stderr: "ignore" }));
const { tools } = await host.listTools();
const results = [];
for (const [name, args] of JSON.parse(calls)) results.push(await host.callTool({ name, arguments: args }));
await host.close();
console.log(JSON.stringify({ tools: tools.map((tool) => tool.name), results }));
