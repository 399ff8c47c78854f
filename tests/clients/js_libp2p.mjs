// js-libp2p, which shares no code with ours, against a node and a relay:
//   js_libp2p.mjs id SEED                     the peer id of that seed
//   js_libp2p.mjs ping ADDRESS                pings a node
//   js_libp2p.mjs reserve ADDRESS SEED [TOKEN]  a reservation, with a token or without one
//   js_libp2p.mjs circuit ADDRESS SEED TOKEN SEED TOKEN  two peers meet over a relay
// It runs in the folder of the installed packages. SEED is a text. A token is shown over `/dawn/relay-token/1`: a length of
// two bytes and the token, answered by a byte (0: accepted) and a reason.
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { noise } from "@chainsafe/libp2p-noise";
import { yamux } from "@chainsafe/libp2p-yamux";
import { circuitRelayTransport } from "@libp2p/circuit-relay-v2";
import { generateKeyPairFromSeed } from "@libp2p/crypto/keys";
import { identify } from "@libp2p/identify";
import { peerIdFromPrivateKey } from "@libp2p/peer-id";
import { ping } from "@libp2p/ping";
import { tcp } from "@libp2p/tcp";
import { byteStream } from "@libp2p/utils";
import { multiaddr } from "@multiformats/multiaddr";
import { createLibp2p } from "libp2p";

const [command, ...rest] = process.argv.slice(2);
const TOKENS = "/dawn/relay-token/1";
const ECHO = "/e2e/echo/1";
const key = (seed) => generateKeyPairFromSeed("Ed25519", createHash("sha256").update(seed).digest());
const inTime = () => ({ signal: AbortSignal.timeout(20_000) });

const peers = [];
async function peer(seed) {
  const made = await createLibp2p({
    privateKey: await key(seed),
    transports: [tcp(), circuitRelayTransport()],
    connectionEncrypters: [noise()],
    streamMuxers: [yamux()],
    services: { identify: identify(), ping: ping() },
    connectionGater: { denyDialMultiaddr: () => false },
  });
  peers.push(made);
  return made;
}

// Shows a token; fails with the relay's reason where it is refused.
async function show(peer, relay, token) {
  const stream = byteStream(await peer.dialProtocol(relay, TOKENS, inTime()));
  const text = new TextEncoder().encode(token);
  await stream.write(Uint8Array.of(text.length >> 8, text.length & 255, ...text), inTime());
  const answer = (await stream.read(inTime())).subarray();
  const reason = new TextDecoder().decode(answer.subarray(1));
  assert.equal(answer[0], 0, `the token is refused: ${answer[0]} ${reason}`);
}

// Reserves, and gives the address at which the peer is reached over the relay.
async function reserve(peer, relay) {
  await peer.components.transportManager.listen([relay.encapsulate("/p2p-circuit")]);
  const mine = () => peer.getMultiaddrs().find((address) => address.toString().includes("/p2p-circuit"));
  for (let waited = 0; waited < 200 && !mine(); waited += 1) await new Promise((wake) => setTimeout(wake, 50));
  assert(mine(), "no address over the relay");
  return mine();
}

const commands = {
  async id(seed) {
    console.log(peerIdFromPrivateKey(await key(seed)).toString());
  },
  async ping(address) {
    const one = await peer("ping");
    console.log(`answered in ${await one.services.ping.ping(multiaddr(address), inTime())} ms`);
  },
  async reserve(address, seed, token) {
    const [one, relay] = [await peer(seed), multiaddr(address)];
    if (token) await show(one, relay, token);
    console.log(`reserved: ${await reserve(one, relay)}`);
  },
  async circuit(address, seed, token, otherSeed, otherToken) {
    const [one, other, relay] = [await peer(seed), await peer(otherSeed), multiaddr(address)];
    await show(one, relay, token);
    await show(other, relay, otherToken);
    await one.handle(
      ECHO,
      async (stream) => {
        for await (const bytes of stream) stream.send(bytes);
      },
      { runOnLimitedConnection: true },
    );
    const at = await reserve(one, relay);
    const stream = byteStream(await other.dialProtocol(at, ECHO, { ...inTime(), runOnLimitedConnection: true }));
    const said = "over a relay that cannot read it";
    await stream.write(new TextEncoder().encode(said), inTime());
    const echoed = await stream.read({ bytes: said.length, ...inTime() });
    assert.equal(new TextDecoder().decode(echoed.subarray()), said);
    const over = other.getConnections(one.peerId).map((connection) => connection.remoteAddr.toString());
    assert(over.some((address) => address.includes("/p2p-circuit")), `over ${over}`);
    console.log("talked over the relay");
  },
};

let code = 0;
try {
  await commands[command](...rest);
} catch (error) {
  console.log(`failed: ${error.message}`);
  code = 1;
}
await Promise.all(peers.map((peer) => peer.stop()));
process.exit(code);
