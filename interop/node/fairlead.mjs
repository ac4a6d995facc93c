// What the suites share: a key of its own for each test, a record of what went over the wire, and the comparison of that
// with what the ledger holds. The SDKs themselves are left as they are; only the global fetch that they use is watched.
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { randomUUID } from "node:crypto";
import { promisify } from "node:util";

const run = promisify(execFile);
const binary = need("FAIRLEAD_BIN");
export const gateway = need("FAIRLEAD_URL");

function need(name) {
  const value = process.env[name];
  if (!value) throw new Error(`${name} is not set: start the suites with interop/run.sh`);
  return value;
}

async function fairlead(...args) {
  const { stdout } = await run(binary, args, { encoding: "buffer", maxBuffer: 64 << 20 });
  return stdout;
}

// newKey makes a key of an app of its own: the practice model gives equal answers to equal questions, and within one app
// it could not be told which of them a call goes on from.
export async function newKey() {
  seen.length = 0; // what a failed test left
  return JSON.parse(await fairlead("key", "create", "--app", `node-${randomUUID()}`, "--json"));
}

// approve runs a subcommand of fairlead approve and gives what it prints as JSON.
export const approve = async (...args) => JSON.parse(await fairlead("approve", ...args));

export const revokeKey = (id) => fairlead("key", "revoke", id);

const seen = []; // {request, response: promise of bytes, id, status}, in order
const realFetch = globalThis.fetch;
globalThis.fetch = async function watched(input, init) {
  const request = new Request(input, init?.body ? { ...init, duplex: "half" } : init);
  const sent = Buffer.from(await request.clone().arrayBuffer());
  const response = await realFetch(request);
  const [forClient, forUs] = response.body ? response.body.tee() : [null, null];
  seen.push({
    path: new URL(request.url).pathname,
    sent,
    got: forUs ? new Response(forUs).arrayBuffer().then(Buffer.from) : Promise.resolve(Buffer.alloc(0)),
    id: response.headers.get("fairlead-decision-id"),
    status: response.status,
    retry: response.headers.get("x-should-retry"),
  });
  return new Response(forClient, { status: response.status, statusText: response.statusText, headers: response.headers });
};

// recorded gives the calls of a key from the ledger, in order: {id, intent, outcome} or {id, refused}.
export async function recorded(key) {
  const lines = (await fairlead("tail", "--all", "--json", "-n", "1000000")).toString().trimEnd().split("\n");
  const calls = new Map();
  for (const line of lines) {
    const { envelope } = JSON.parse(line);
    if (envelope.kind === "call.intent/1" && envelope.attrs["fairlead.key.id"] === key.id) calls.set(envelope.id, { id: envelope.id, intent: envelope });
    if (envelope.kind === "call.refused/1" && envelope.attrs["fairlead.key.id"] === key.id) calls.set(envelope.id, { id: envelope.id, intent: envelope, refused: envelope });
    if (envelope.kind === "call.outcome/1") {
      const call = calls.get(envelope.links.find((l) => l.rel === "completes").to);
      if (call) call.outcome = envelope;
    }
  }
  return [...calls.values()];
}

// rejected takes the calls since the last settle off the list, which were refused for their key. One by one they are not
// recorded: a fact a minute counts them.
export function rejected() {
  return seen.splice(0).map(({ status, retry }) => ({ status, retry }));
}

// settle checks that each call that was made since the last settle is in the ledger once, with exactly the bytes that
// went over the wire in both directions, and returns the calls.
export async function settle(key) {
  const wire = seen.splice(0);
  const calls = (await recorded(key)).slice(key.settled ?? 0);
  key.settled = (key.settled ?? 0) + calls.length;
  assert.deepEqual(calls.map((c) => c.id), wire.map((w) => w.id), "calls in the ledger, and calls on the wire");
  for (const [i, w] of wire.entries()) {
    const call = calls[i];
    call.retry = w.retry;
    call.status = w.status;
    call.path = w.path;
    if (w.sent.length > 0) {
      assert.equal((await fairlead("show", "--raw", "request", w.id)).toString(), w.sent.toString(), `request of ${w.id}`);
    }
    if (call.refused) {
      assert.equal(call.refused.attrs["http.response.status_code"], w.status);
      continue;
    }
    assert.ok(call.outcome, `${w.id} has no outcome`);
    assert.equal(call.outcome.attrs["http.response.status_code"] ?? w.status, w.status);
    const raw = await fairlead("show", "--raw", "response", w.id);
    assert.ok(raw.equals(await w.got), `answer of ${w.id}: recorded\n${raw}\nreceived\n${await w.got}`);
  }
  return calls;
}

export const outcomes = (calls) => calls.map((c) => c.refused?.attrs["fairlead.refusal"] ?? c.outcome.attrs["fairlead.outcome"]);

export const toolsCalled = (call) => call.outcome.attrs["fairlead.tools.called"] ?? [];

// follows checks that a call was derived to go on from an earlier one, by the given relations and no other.
export function follows(call, earlier, ...relations) {
  const links = (call.intent.links ?? []).map((l) => `${l.rel} ${l.to} ${l.a}`);
  assert.deepEqual(links.sort(), relations.map((r) => `${r} ${earlier.id} derived`).sort(), `links of ${call.id}`);
  assert.equal(call.intent.attrs["fairlead.turns.declared"], undefined, `${call.id} has assistant turns or tool results that were not recognised`);
  assert.equal(call.intent.attrs["fairlead.state.unresolved"], undefined, `${call.id} refers to unknown state`);
}

// refers is follows for a call that names what the provider keeps of an earlier one instead of sending it again: which of
// the two relations it is depends on how much was sent.
export function refers(call, earlier) {
  const links = (call.intent.links ?? []).filter((l) => l.to === earlier.id && l.a === "derived").map((l) => l.rel);
  assert.ok(links.includes("refers") || links.includes("continues"), `${call.id} does not follow from ${earlier.id}: ${JSON.stringify(call.intent.links)}`);
  assert.equal(call.intent.attrs["fairlead.state.unresolved"], undefined, `${call.id} refers to unknown state`);
  return links;
}

// The scene of all suites: a user asks for a ticket, the model calls read_ticket, gets this back and sums it up.
export const question = "Please read ticket 4711 and summarise it for me.";
export const ticket = 'Ticket 4711: the parcel “Größe L” arrived damaged.\n\tCosts: 12 € & "nothing" else </b> \u2028 done.';
export const ticketSchema = { type: "object", properties: { id: { type: "string", description: "The ticket's number" } }, required: ["id"], additionalProperties: false };
export const ticketTool = { name: "read_ticket", description: "Read a ticket by its number" };
