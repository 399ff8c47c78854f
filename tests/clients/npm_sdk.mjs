// The official npm SDKs against Dawn, with sampling, elicitation and progress in use:
//   npm_sdk.mjs VERSION MODULES http API TOKEN
//   npm_sdk.mjs VERSION MODULES stdio DAWN HOME
//   npm_sdk.mjs 1 MODULES ws API TOKEN
// VERSION is 1 or 2; version 2 speaks both eras, one after the other. MODULES is the folder of the installed packages.
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [version, modules, kind, where, secret] = process.argv.slice(2);
const find = createRequire(`${modules}/package.json`);
const load = (name) => import(pathToFileURL(find.resolve(name)).href);

const sdk =
  version === "1"
    ? {
        ...(await load("@modelcontextprotocol/sdk/client/index.js")),
        ...(await load("@modelcontextprotocol/sdk/client/streamableHttp.js")),
        ...(await load("@modelcontextprotocol/sdk/client/stdio.js")),
        ...(await load("@modelcontextprotocol/sdk/client/websocket.js")),
        types: await load("@modelcontextprotocol/sdk/types.js"),
      }
    : { ...(await load("@modelcontextprotocol/client")), ...(await load("@modelcontextprotocol/client/stdio")) };

function transport(address) {
  if (kind === "http") {
    const url = new URL(`${where}/mcp${address ? "/" + address.replace(":", "/") : ""}`);
    return new sdk.StreamableHTTPClientTransport(url, {
      requestInit: { headers: { Authorization: `Bearer ${secret}` } },
    });
  }
  if (kind === "ws") {
    const path = address ? "/" + address.replace(":", "/") : "";
    // It takes an address and nothing else.
    return new sdk.WebSocketClientTransport(new URL(`${where.replace("http", "ws")}/ws${path}?token=${secret}`));
  }
  const args = ["--home", secret, "mcp", ...(address ? [address] : [])];
  return new sdk.StdioClientTransport({ command: where, args });
}

function answer(client, method, schema, handler) {
  client.setRequestHandler(version === "1" ? sdk.types[schema] : method, handler);
}

async function exercise(address, prefix, mode) {
  const client = new sdk.Client(
    { name: "npm", version: "1" },
    { capabilities: { sampling: {}, elicitation: { form: {} } }, ...(mode ? { versionNegotiation: { mode } } : {}) },
  );
  let sampled = 0;
  let elicited = 0;
  answer(client, "sampling/createMessage", "CreateMessageRequestSchema", async () => {
    sampled += 1;
    return { role: "assistant", model: "m", content: { type: "text", text: "a poem" } };
  });
  answer(client, "elicitation/create", "ElicitRequestSchema", async () => {
    elicited += 1;
    return { action: "accept", content: { name: "Ada" } };
  });
  await client.connect(transport(address));
  try {
    const { tools } = await client.listTools();
    assert.ok(tools.some((tool) => tool.name === `${prefix}echo`), tools.map((tool) => tool.name).join(" "));
    const call = async (name, args, options) =>
      version === "1"
        ? client.callTool({ name: prefix + name, arguments: args }, undefined, options)
        : client.callTool({ name: prefix + name, arguments: args }, options);
    assert.equal((await call("echo", { text: "grüße" })).content[0].text, "grüße");
    assert.match((await call("ask_sampling", { prompt: "write" })).content[0].text, /a poem/);
    assert.match((await call("ask_elicitation", {})).content[0].text, /Ada/);
    assert.deepEqual([sampled, elicited], [1, 1]);
    const progress = [];
    const slow = await call("slow", { seconds: 0.3, steps: 3 }, { onprogress: (step) => progress.push(step.progress) });
    assert.equal(slow.content[0].text, "finished");
    // Over standard I/O the SDKs lose progress that comes in one piece with the result, with and without Dawn.
    assert.deepEqual(progress.slice(0, 2), [1, 2]);
    console.log(address ?? "all", mode ?? "legacy", "spoke", client.getNegotiatedProtocolVersion?.() ?? "");
  } finally {
    await client.close();
  }
}

const modes = version === "1" ? [undefined] : ["legacy", { pin: "2026-07-28" }];
for (const mode of modes) {
  await exercise("b:probe", "", mode);
  await exercise(undefined, "b__probe__", mode);
}
console.log("all good");
process.exit(0);
