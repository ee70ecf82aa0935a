// The host's page: calls the tool that its address names, and shows the tool's view with the SDK's bridge, in a sandbox
// of another origin, as the SDK's own example of a host does.
import { Client, StreamableHTTPClientTransport } from "@modelcontextprotocol/client";
import {
  AppBridge,
  PostMessageTransport,
  RESOURCE_MIME_TYPE,
  getToolUiResourceUri,
} from "@modelcontextprotocol/ext-apps/app-bridge";

const asked = new URLSearchParams(location.search);
const seen = (window.seen = { links: [], calls: [], result: null });

const client = new Client(
  { name: "reference host", version: "1.0.0" },
  {
    capabilities: { extensions: { "io.modelcontextprotocol/ui": { mimeTypes: [RESOURCE_MIME_TYPE] } } },
    versionNegotiation: asked.get("era") === "newest" ? { mode: "auto" } : undefined,
  },
);
await client.connect(new StreamableHTTPClientTransport(new URL("/mcp", location.href)));
const call = { name: asked.get("tool"), arguments: JSON.parse(asked.get("arguments")) };
const tool = (await client.listTools()).tools.find((each) => each.name === call.name);
const uri = getToolUiResourceUri(tool);
const calling = client.callTool(call);
const { contents } = await client.readResource({ uri });

const frame = document.createElement("iframe");
frame.title = "view";
frame.setAttribute("sandbox", "allow-scripts allow-same-origin allow-forms");
frame.style.cssText = "width: 100%; border: 0;";
const ready = new Promise((resolve) => {
  window.addEventListener("message", function listen(event) {
    if (event.source === frame.contentWindow && event.data?.method === "ui/notifications/sandbox-proxy-ready") {
      window.removeEventListener("message", listen);
      resolve();
    }
  });
});
frame.src = `http://localhost:${asked.get("sandbox")}/${asked.has("opaque") ? "?opaque" : ""}`;
document.body.append(frame);
await ready;

const bridge = (window.bridge = new AppBridge(
  client,
  { name: "reference host", version: "1.0.0" },
  asked.has("still") ? {} : { openLinks: {}, serverTools: {}, serverResources: {}, logging: {} },
  { hostContext: { theme: asked.get("theme") ?? "light", locale: asked.get("locale") ?? "en-US", toolInfo: { tool } } },
));
const initialized = new Promise((resolve) => bridge.addEventListener("initialized", resolve));
bridge.onopenlink = async ({ url }) => (seen.links.push(url), {});
bridge.addEventListener("sizechange", ({ height }) => {
  frame.style.height = `${height}px`;
});
bridge.oncalltool = async (params) => {
  seen.calls.push(params.arguments);
  return client.callTool(params);
};
await bridge.connect(new PostMessageTransport(frame.contentWindow, frame.contentWindow));
bridge.sendSandboxResourceReady({ html: contents[0].text, csp: contents[0]._meta?.ui?.csp });
await initialized;
bridge.sendToolInput({ arguments: call.arguments });
seen.result = await calling;
bridge.sendToolResult(seen.result);
