// Serves a host of MCP Apps: its page, bundled with the ext-apps SDK; on a port of its own the sandbox that it embeds;
// and, under the page's origin, the MCP server whose URL it is given. Prints both of its ports.
import { build } from "esbuild";
import { createServer, request } from "node:http";
import { argv } from "node:process";

const [server, page, sandbox] = argv.slice(2);
const bundle = async (file) =>
  (await build({ entryPoints: [file], bundle: true, format: "esm", write: false, nodePaths: ["node_modules"] }))
    .outputFiles[0].text;
const script = { page: await bundle(page), sandbox: await bundle(sandbox) };

// What the specification says for a resource that names no domains.
const POLICY = [
  "default-src 'none'",
  "script-src 'self' 'unsafe-inline'",
  "style-src 'self' 'unsafe-inline'",
  "img-src 'self' data:",
  "media-src 'self' data:",
  "connect-src 'none'",
].join("; ");

function listen(name, headers, other) {
  const served = createServer((incoming, answer) => {
    if (new URL(incoming.url, "http://host").pathname === "/") {
      answer.writeHead(200, { "Content-Type": "text/html; charset=utf-8", ...headers });
      answer.end(`<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,"><title>${name}</title><body><script type="module" src="script.js"></script>`);
    } else if (incoming.url === "/script.js") {
      answer.writeHead(200, { "Content-Type": "text/javascript" });
      answer.end(script[name]);
    } else {
      other(incoming, answer);
    }
  });
  return new Promise((resolve) => served.listen(0, "127.0.0.1", () => resolve(served.address().port)));
}

function pass(incoming, answer) {
  const { host, origin, ...headers } = incoming.headers;
  const passed = request(server, { method: incoming.method, headers }, (got) => {
    answer.writeHead(got.statusCode, got.headers);
    got.pipe(answer);
  });
  passed.on("error", () => answer.destroy());
  answer.on("close", () => passed.destroy());
  incoming.pipe(passed);
}

const nothing = (incoming, answer) => answer.writeHead(404).end();
const ports = {
  page: await listen("page", {}, (incoming, answer) =>
    incoming.url === "/mcp" ? pass(incoming, answer) : nothing(incoming, answer),
  ),
  sandbox: await listen("sandbox", { "Content-Security-Policy": POLICY }, nothing),
};
console.log(JSON.stringify(ports));
