import assert from "node:assert/strict";
import { beforeEach, suite, test } from "node:test";
import Anthropic from "@anthropic-ai/sdk";
import { betaZodTool } from "@anthropic-ai/sdk/helpers/beta/zod";
import { z } from "zod";
import { follows, gateway, newKey, outcomes, question, refers, rejected, revokeKey, settle, ticket, ticketSchema, ticketTool, toolsCalled } from "./fairlead.mjs";

suite("@anthropic-ai/sdk", () => {
  let key, client;
  const at = (provider) => new Anthropic({ baseURL: `${gateway}/${provider}`, apiKey: key.secret });
  beforeEach(async () => {
    key = await newKey();
    client = at("watched-anthropic");
  });

  const base = { model: "practice-1", max_tokens: 1024 };
  const tools = [{ ...ticketTool, input_schema: ticketSchema }];
  const user = (content) => ({ role: "user", content });

  test("messages", async () => {
    const first = await client.messages.create({ ...base, messages: [user("Hello 🙂")] });
    assert.match(first.content[0].text, /Hello 🙂/);
    await client.messages.create({ ...base, messages: [user("Hello 🙂"), { role: first.role, content: first.content }, user("And again?")] });
    const [a, b] = await settle(key);
    assert.equal(a.outcome.attrs["gen_ai.usage.output_tokens"], first.usage.output_tokens);
    follows(b, a, "continues");
  });

  test("messages, streamed", async () => {
    let text = "";
    for await (const event of await client.messages.create({ ...base, max_tokens: 100_000, model: "practice-long-64", messages: [user("Hello")], stream: true })) {
      if (event.type === "content_block_delta") text += event.delta.text;
    }
    assert.equal(text.length, 64 << 10);
    const [call] = await settle(key);
    assert.equal(call.intent.attrs["gen_ai.request.stream"], true);
    assert.deepEqual(outcomes([call]), ["completed"]);
  });

  for (const streamed of [false, true]) {
    test(`tools by hand${streamed ? ", streamed" : ""}`, async () => {
      const ask = (body) => (streamed ? client.messages.stream(body).finalMessage() : client.messages.create(body));
      const messages = [user(question)];
      const request = { ...base, system: "You are the support agent.", tools, messages };
      const first = await ask(request);
      const use = first.content.find((c) => c.type === "tool_use");
      assert.deepEqual([use.name, use.input], ["read_ticket", { id: "4711" }]);
      messages.push({ role: "assistant", content: first.content }, user([{ type: "tool_result", tool_use_id: use.id, content: ticket }]));
      const second = await ask(request);
      assert.match(second.content.at(-1).text, /arrived damaged/);
      messages.push({ role: "assistant", content: second.content }, user("Thank you."));
      await ask(request);
      const [a, b, c] = await settle(key);
      assert.deepEqual(toolsCalled(a), ["read_ticket"]);
      follows(b, a, "continues", "tool_result");
      follows(c, b, "continues");
    });

    test(`toolRunner${streamed ? ", streamed" : ""}`, async () => {
      const runner = client.beta.messages.toolRunner({
        ...base, stream: streamed, messages: [user(question)],
        tools: [betaZodTool({ ...ticketTool, inputSchema: z.object({ id: z.string() }), run: ({ id }) => (id === "4711" ? ticket : "no such ticket") })],
      });
      const last = await runner.runUntilDone();
      assert.match(last.content.at(-1).text, /arrived damaged/);
      const [a, b] = await settle(key);
      assert.deepEqual(toolsCalled(a), ["read_ticket"]);
      assert.ok(refers(b, a).includes("tool_result")); // the runner sends a thread's id and the result alone
    });
  }

  test("a thread that nobody here has seen", async () => {
    const request = { ...base, messages: [user("Go on.")], thread: { type: "continue", previous_message_id: "msg_01unknown" } };
    await client.beta.messages.create(request);
    await assert.rejects(at("guarded-anthropic").beta.messages.create(request), Anthropic.PermissionDeniedError);
    const calls = await settle(key);
    assert.deepEqual(calls[0].intent.attrs["fairlead.would_refuse"], ["deny-unresolved-state"]);
    assert.deepEqual(outcomes(calls), ["completed", "policy_denied"]);
  });

  test("count_tokens and models", async () => {
    const count = await client.messages.countTokens({ model: base.model, messages: [user("Hello")] });
    assert.ok(count.input_tokens > 0);
    const ids = [];
    for await (const m of client.models.list()) ids.push(m.id);
    assert.ok(ids.includes(base.model));
    assert.equal((await client.models.retrieve(base.model)).id, base.model);
    const calls = await settle(key);
    assert.deepEqual(calls.map((c) => c.intent.attrs["gen_ai.operation.name"]), ["count_tokens", "list_models", "list_models"]);
  });

  test("identity", async () => {
    await client.messages.create({ ...base, messages: [user("Hello")] }, { headers: { baggage: "user.id=dana%40acme.example,gen_ai.agent.id=desk" } });
    await client.messages.create({ ...base, messages: [user("Hello")], metadata: { user_id: "dana@acme.example" } });
    const [a, b] = await settle(key);
    assert.deepEqual(a.intent.actor.app, { v: key.app, a: "verified", m: "virtual-key" });
    assert.deepEqual(a.intent.actor.agent, { v: "desk", a: "declared", m: "baggage" });
    assert.equal(a.intent.actor.user.v, b.intent.actor.user.v);
    assert.deepEqual([a.intent.actor.user.m, b.intent.actor.user.m], ["baggage", "body"]);
  });

  test("keys that do not hold", async () => {
    await revokeKey(key.id);
    for (const stream of [false, true]) {
      await assert.rejects(client.messages.create({ ...base, messages: [user("Hello")], stream }), (err) => {
        assert.ok(err instanceof Anthropic.AuthenticationError);
        assert.equal(err.error.error.type, "authentication_error");
        assert.equal(err.error.error.code, "revoked_key");
        return true;
      });
    }
    assert.deepEqual(rejected(), Array(2).fill({ status: 401, retry: "false" }));
  });

  test("refused by policy", async () => {
    for (const stream of [false, true]) {
      await assert.rejects(
        at("guarded-anthropic").messages.create({ ...base, messages: [user("Hello")], tools: [{ type: "web_search_20250305", name: "web_search" }], stream }),
        (err) => {
          assert.ok(err instanceof Anthropic.PermissionDeniedError);
          assert.equal(err.error.error.code, "policy_denied");
          assert.ok(err.requestID);
          return true;
        },
      );
    }
    const calls = await settle(key);
    assert.deepEqual(outcomes(calls), ["policy_denied", "policy_denied"]);
    assert.ok(calls.every((c) => c.retry === "false"));
  });

  test("refused, path not known", async () => {
    await assert.rejects(at("guarded-anthropic").messages.batches.list(), Anthropic.PermissionDeniedError);
    assert.deepEqual(outcomes(await settle(key)), ["unmapped"]);
  });

  test("errors of the provider are retried and passed on", async () => {
    for (const [status, type, attempts] of [[429, Anthropic.RateLimitError, 3], [529, Anthropic.InternalServerError, 3], [404, Anthropic.NotFoundError, 1]]) {
      await assert.rejects(client.messages.create({ ...base, model: `practice-error-${status}`, messages: [user("Hello")] }), type);
      assert.deepEqual(outcomes(await settle(key)), Array(attempts).fill("upstream_status"));
    }
  });

  test("a stream that breaks off is no answer", async () => {
    await assert.rejects(client.messages.stream({ ...base, model: "practice-reset", messages: [user("Hello")] }).finalMessage());
    assert.deepEqual(outcomes(await settle(key)), ["upstream_error"]);
  });
});
