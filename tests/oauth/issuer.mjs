// The npm package oidc-provider as an authorization server that asks nobody: issuer.mjs MODULES
// MODULES is the folder of the installed packages. Any login name is an account, every question is answered with yes.
// Tests steer it under /test: its answers can be bent, what it was asked can be read, tokens can be had without a browser.
import assert from "node:assert/strict";
import { generateKeyPair, randomBytes } from "node:crypto";
import { once } from "node:events";
import http from "node:http";
import { createRequire } from "node:module";
import querystring from "node:querystring";
import { pathToFileURL } from "node:url";
import { promisify } from "node:util";

// The standard output is for the one line that tells where we listen; the package writes its notices with console.info.
globalThis.console = new console.Console(process.stderr);

const find = createRequire(`${process.argv[2]}/package.json`);
const { Provider } = await import(pathToFileURL(find.resolve("oidc-provider")).href);

const RESOURCE_SCOPES = ["mcp:tools", "mcp:admin"];
const BEHAVIOURS = new Set([
  "access_token_ttl",
  "dpop_nonce",
  "metadata_issuer",
  "pkce_methods",
  "response_iss",
  "signing_alg",
  "token_endpoint_status",
]);
// What a member that is absent here means is what the real provider does.
let behaviour = {};
let requests = [];

const cookieKey = randomBytes(32).toString("hex");
const nonceSecret = randomBytes(32);

for (const signal of ["SIGTERM", "SIGINT"]) process.on(signal, () => process.exit(0));
process.stdin.on("close", () => process.exit(0)).resume();

const server = http.createServer((request, response) => handle(request, response));
await once(server.listen(0, "127.0.0.1"), "listening");
const issuer = `http://127.0.0.1:${server.address().port}`;
let provider;
let handle;
await useNewKeys();
process.stdout.write(`${JSON.stringify({ issuer })}\n`);

// The keys of a provider are fixed when it is made: rotation puts a new one in its place, over the same storage.
async function useNewKeys() {
  const keys = [await newKey("ec", { namedCurve: "P-256" }), await newKey("rsa", { modulusLength: 2048 })];
  const before = provider;
  provider = new Provider(issuer, configuration(keys, before && ((model) => before[model].adapter)));
  provider.use(front);
  for (const event of ["authorization", "grant", "introspection", "registration_create", "revocation"]) {
    // The reason is more than the client is told.
    provider.on(`${event}.error`, (ctx, error) =>
      console.error(`${ctx.path}: ${error.message}: ${error.error_detail ?? error.error_description}`),
    );
  }
  provider.on("server_error", (ctx, error) => console.error(`${ctx.path}:`, error));
  handle = provider.callback();
}

async function newKey(type, options) {
  const { privateKey } = await promisify(generateKeyPair)(type, options);
  return privateKey.export({ format: "jwk" });
}

function configuration(keys, adapter) {
  const lifetime = () => behaviour.access_token_ttl ?? 3600;
  // The gateway guards resources: it asks about tokens which others were given.
  const own = (ctx, client, token) => client.clientId === "gateway" || client.clientId === token.clientId;
  return {
    adapter,
    jwks: { keys },
    cookies: { keys: [cookieKey] },
    // Both ends read one clock; a token is over when it says so.
    clockTolerance: 0,
    responseTypes: ["code"],
    scopes: ["openid", "offline_access", ...RESOURCE_SCOPES],
    pkce: { required: () => true },
    ttl: { AccessToken: lifetime, ClientCredentials: lifetime },
    issueRefreshToken: async (ctx, client) => client.grantTypeAllowed("refresh_token"),
    expiresWithSession: async () => false,
    findAccount: async (ctx, sub) => ({ accountId: sub, claims: async () => ({ sub }) }),
    clientDefaults: { id_token_signed_response_alg: "ES256" },
    clients: [
      {
        client_id: "machine",
        client_secret: "machine-secret",
        grant_types: ["client_credentials"],
        response_types: [],
        redirect_uris: [],
        scope: RESOURCE_SCOPES.join(" "),
      },
      {
        client_id: "gateway",
        client_secret: "gateway-secret",
        grant_types: [],
        response_types: [],
        redirect_uris: [],
      },
      {
        client_id: "person",
        // A native client's loopback redirection may have any port, RFC 8252 section 7.3.
        application_type: "native",
        token_endpoint_auth_method: "none",
        grant_types: ["authorization_code", "refresh_token"],
        redirect_uris: ["http://127.0.0.1/callback"],
      },
    ],
    features: {
      clientCredentials: { enabled: true },
      devInteractions: { enabled: false },
      dPoP: { enabled: true, nonceSecret, requireNonce: () => behaviour.dpop_nonce === true },
      introspection: { enabled: true, allowedPolicy: own },
      registration: { enabled: true },
      resourceIndicators: { enabled: true, getResourceServerInfo: (ctx, resource) => resourceServer(resource) },
      revocation: { enabled: true, allowedPolicy: own },
    },
  };
}

function resourceServer(resource) {
  return {
    scope: RESOURCE_SCOPES.join(" "),
    audience: resource,
    accessTokenFormat: new URL(resource).pathname.split("/").includes("opaque") ? "opaque" : "jwt",
    jwt: { sign: { alg: behaviour.signing_alg ?? "ES256" } },
  };
}

async function front(ctx, next) {
  const body = ["POST", "PUT"].includes(ctx.method) ? Buffer.concat(await Array.fromAsync(ctx.req)) : undefined;
  if (ctx.path.startsWith("/test/")) {
    return steer(ctx, body).catch((error) => {
      ctx.status = 400;
      ctx.body = { error: error.message };
    });
  }
  // Where the stream has been read, the provider takes the bytes from here.
  ctx.req.body = body;
  requests.push({
    method: ctx.method,
    path: ctx.path,
    query: ctx.query,
    form: ctx.is("urlencoded") ? querystring.parse(body.toString()) : {},
    json: ctx.is("json") ? parsed(body) : null,
    dpop: ctx.get("DPoP") !== "",
    authorization: ctx.get("Authorization") || null,
  });
  if (ctx.path.startsWith("/interaction/")) return agree(ctx);
  if (ctx.path === "/token" && behaviour.token_endpoint_status) {
    ctx.status = behaviour.token_endpoint_status;
    ctx.body = { error: behaviour.token_endpoint_status === 400 ? "invalid_grant" : "server_error" };
    return;
  }
  await next();
  if (ctx.path.startsWith("/.well-known/") && ctx.status === 200) bendMetadata(ctx.body);
  if (ctx.path.startsWith("/auth")) bendRedirection(ctx);
}

function parsed(body) {
  try {
    return JSON.parse(body);
  } catch {
    return null; // The provider says what is wrong with it.
  }
}

async function agree(ctx) {
  const { prompt, params, session } = await provider.interactionDetails(ctx.req, ctx.res);
  const accountId = prompt.name === "login" ? (params.login_hint ?? "alice") : session.accountId;
  const grantId = await grant(accountId, params.client_id, params.scope, [params.resource ?? []].flat());
  ctx.status = 303;
  ctx.redirect(
    await provider.interactionResult(ctx.req, ctx.res, {
      ...(prompt.name === "login" ? { login: { accountId } } : {}),
      consent: { grantId },
    }),
  );
}

// Without a scope nothing is granted, which the provider answers with access_denied.
async function grant(accountId, clientId, scope, resources) {
  const granted = new provider.Grant({ accountId, clientId });
  if (scope) {
    granted.addOIDCScope(scope);
    for (const resource of resources) granted.addResourceScope(resource, scope);
  }
  return granted.save();
}

function bendMetadata(metadata) {
  if (behaviour.metadata_issuer) metadata.issuer = behaviour.metadata_issuer;
  if (behaviour.pkce_methods === null) delete metadata.code_challenge_methods_supported;
  else if (behaviour.pkce_methods) metadata.code_challenge_methods_supported = behaviour.pkce_methods;
}

function bendRedirection(ctx) {
  const location = URL.parse(ctx.response.get("Location"));
  if (behaviour.response_iss === undefined || !location?.searchParams.has("iss")) return;
  if (behaviour.response_iss === null) location.searchParams.delete("iss");
  else location.searchParams.set("iss", behaviour.response_iss);
  ctx.set("Location", location.href);
}

async function steer(ctx, body) {
  switch (`${ctx.method} ${ctx.path}`) {
    case "POST /test/behaviour": {
      const { rotate_keys: rotate, ...change } = JSON.parse(body);
      for (const name of Object.keys(change)) assert(BEHAVIOURS.has(name), `no behaviour ${name}`);
      behaviour = { ...behaviour, ...change };
      if (rotate) await useNewKeys();
      ctx.body = behaviour;
      break;
    }
    case "DELETE /test/behaviour":
      ctx.body = behaviour = {};
      break;
    case "GET /test/requests":
      ctx.body = requests;
      break;
    case "DELETE /test/requests":
      ctx.body = requests = [];
      break;
    case "POST /test/token":
      ctx.body = await mint(JSON.parse(body));
      break;
    default:
      ctx.status = 404;
  }
}

// A token as the token endpoint would give it, for a person where there is a `sub`, else for the machine itself.
// A negative `ttl` makes one that is over.
async function mint({ resource, scope, sub, ttl, jkt, client_id: clientId = sub ? "person" : "machine" }) {
  const client = await provider.Client.find(clientId);
  assert(client, `no client ${clientId}`);
  const token = sub
    ? new provider.AccessToken({
        client,
        scope,
        expiresIn: ttl,
        accountId: sub,
        grantId: await grant(sub, clientId, scope, resource ? [resource] : []),
        gty: "authorization_code",
      })
    : new provider.ClientCredentials({ client, scope, expiresIn: ttl });
  if (resource) token.resourceServer = new provider.ResourceServer(resource, resourceServer(resource));
  if (jkt) token.setThumbprint("jkt", jkt);
  return {
    access_token: await token.save(),
    token_type: token.tokenType,
    expires_in: token.expiration,
    scope,
  };
}
