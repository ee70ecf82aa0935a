// npm's oidc-provider on a free port. Prints a line of JSON: its issuer, and tokens for the audience that is its argument.
import { generateKeyPairSync } from "node:crypto";
import http from "node:http";
import Provider from "oidc-provider";

console.info = console.warn = () => {}; // its advice for production

const [audience] = process.argv.slice(2);
const scope = "kimi:call kimi:swarm";
const asking = { client_id: "kimi server", client_secret: "s3cr3t:of/the+server" };
const agent = { client_id: "agent", client_secret: "the agent's own" };
const machine = { grant_types: ["client_credentials"], redirect_uris: [], response_types: [] };

const key = (kid, type, options) => ({
  ...generateKeyPairSync(type, options).privateKey.export({ format: "jwk" }),
  kid,
  use: "sig",
});
const keys = [
  key("rsa", "rsa", { modulusLength: 2048 }),
  key("curve", "ec", { namedCurve: "P-256" }),
  key("edwards", "ed25519"),
];

const server = http.createServer();
await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
const issuer = `http://127.0.0.1:${server.address().port}`;
const provider = new Provider(issuer, {
  jwks: { keys },
  clients: [asking, agent].map((client) => ({ ...client, ...machine })),
  scopes: scope.split(" "),
  features: {
    clientCredentials: { enabled: true },
    devInteractions: { enabled: false },
    introspection: { enabled: true, allowedPolicy: () => true },
    revocation: { enabled: true, allowedPolicy: () => true },
    resourceIndicators: { enabled: true },
  },
});
server.on("request", provider.callback());

const client = await provider.Client.find("agent");
const granted = new provider.Grant({ accountId: "alice", clientId: "agent" });
granted.addResourceScope(audience, scope);
const grantId = await granted.save();

async function token(format, alg) {
  const made = new provider.AccessToken({ accountId: "alice", client, grantId, gty: "authorization_code", scope });
  const resource = { scope, audience, accessTokenFormat: format, accessTokenTTL: 600, jwt: { sign: { alg } } };
  made.resourceServer = new provider.ResourceServer(audience, resource);
  return made.save();
}

const signed = {};
for (const alg of ["RS256", "PS256", "ES256", "EdDSA"]) signed[alg] = await token("jwt", alg);
console.log(JSON.stringify({ issuer, signed, opaque: await token("opaque") }));
