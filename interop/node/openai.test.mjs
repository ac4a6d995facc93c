import assert from "node:assert/strict";
import { beforeEach, suite, test } from "node:test";
import OpenAI from "openai";
import { follows, gateway, newKey, outcomes, question, rejected, revokeKey, settle, ticket, ticketSchema, ticketTool, toolsCalled } from "./fairlead.mjs";

suite("openai", () => {
  let key, client;
  const at = (provider, secret = key.secret) => new OpenAI({ baseURL: `${gateway}/${provider}/v1`, apiKey: secret });
  beforeEach(async () => {
    key = await newKey();
    client = at("watched");
  });

  const model = "practice-1";
  const chatTools = [{ type: "function", function: { ...ticketTool, parameters: ticketSchema } }];
  const responseTools = [{ type: "function", ...ticketTool, parameters: ticketSchema, strict: true }];
  const user = (content) => ({ role: "user", content });

  test("chat", async () => {
    const first = await client.chat.completions.create({ model, messages: [user("Hello 🙂")] });
    assert.match(first.choices[0].message.content, /Hello 🙂/);
    await client.chat.completions.create({ model, messages: [user("Hello 🙂"), first.choices[0].message, user("And again?")] });
    const [a, b] = await settle(key);
    assert.equal(a.outcome.attrs["gen_ai.usage.output_tokens"], first.usage.completion_tokens);
    follows(b, a, "continues");
  });

  test("chat, streamed", async () => {
    let text = "";
    const stream = await client.chat.completions.create({ model: "practice-long-64", messages: [user("Hello")], stream: true, stream_options: { include_usage: true } });
    let usage;
    for await (const chunk of stream) {
      text += chunk.choices[0]?.delta.content ?? "";
      usage = chunk.usage ?? usage;
    }
    assert.equal(text.length, 64 << 10);
    const [call] = await settle(key);
    assert.equal(call.intent.attrs["gen_ai.request.stream"], true);
    assert.equal(call.outcome.attrs["gen_ai.usage.output_tokens"], usage.completion_tokens);
  });

  test("chat, tools by hand", async () => {
    const messages = [{ role: "system", content: "You are the support agent." }, user(question)];
    const first = await client.chat.completions.create({ model, messages, tools: chatTools });
    const [call] = first.choices[0].message.tool_calls;
    assert.deepEqual([call.function.name, JSON.parse(call.function.arguments)], ["read_ticket", { id: "4711" }]);
    messages.push(first.choices[0].message, { role: "tool", tool_call_id: call.id, content: ticket });
    const second = await client.chat.completions.create({ model, messages, tools: chatTools });
    assert.match(second.choices[0].message.content, /arrived damaged/);
    const [a, b] = await settle(key);
    assert.deepEqual(toolsCalled(a), ["read_ticket"]);
    follows(b, a, "continues", "tool_result");
  });

  for (const stream of [false, true]) {
    test(`chat, runTools${stream ? ", streamed" : ""}`, async () => {
      const runner = client.chat.completions.runTools({
        model, stream, messages: [user(question)],
        tools: [{ type: "function", function: { ...ticketTool, parameters: ticketSchema, parse: JSON.parse, function: ({ id }) => (id === "4711" ? ticket : "no such ticket") } }],
      });
      assert.match(await runner.finalContent(), /arrived damaged/);
      const [a, b] = await settle(key);
      assert.deepEqual(toolsCalled(a), ["read_ticket"]);
      follows(b, a, "continues", "tool_result");
    });
  }

  test("chat, the model refuses", async () => {
    const res = await client.chat.completions.create({ model: "practice-refuse", messages: [user("Hello")] });
    assert.ok(res.choices[0].message.refusal);
    await client.chat.completions.create({ model, messages: [user("Hello"), res.choices[0].message, user("Please?")] });
    const [a, b] = await settle(key);
    follows(b, a, "continues");
  });

  for (const store of [undefined, false]) {
    test(`responses, tools, output sent back${store === false ? ", not stored" : ""}`, async () => {
      const input = [user(question)];
      const first = await client.responses.create({ model, input, tools: responseTools, store });
      const call = first.output.find((o) => o.type === "function_call");
      assert.deepEqual(JSON.parse(call.arguments), { id: "4711" });
      input.push(...first.output, { type: "function_call_output", call_id: call.call_id, output: ticket });
      const second = await client.responses.create({ model, input, tools: responseTools, store });
      assert.match(second.output_text, /arrived damaged/);
      input.push(...second.output, user("Thank you."));
      await client.responses.create({ model, input, tools: responseTools, store });
      const [a, b, c] = await settle(key);
      assert.deepEqual(toolsCalled(a), ["read_ticket"]);
      follows(b, a, "continues", "tool_result");
      follows(c, b, "continues");
    });
  }

  test("responses, streamed, tools, previous_response_id", async () => {
    let first;
    for await (const event of await client.responses.create({ model, input: question, tools: responseTools, stream: true })) {
      if (event.type === "response.completed") first = event.response;
    }
    const call = first.output.find((o) => o.type === "function_call");
    const stream = client.responses.stream({
      model, tools: responseTools, previous_response_id: first.id,
      input: [{ type: "function_call_output", call_id: call.call_id, output: ticket }],
    });
    const second = await stream.finalResponse();
    assert.match(second.output_text, /arrived damaged/);
    const [a, b] = await settle(key);
    follows(b, a, "refers", "tool_result");
  });

  test("embeddings and models", async () => {
    const res = await client.embeddings.create({ model: "practice-embed", input: ["one", "two"] });
    assert.equal(res.data.length, 2);
    const ids = [];
    for await (const m of client.models.list()) ids.push(m.id);
    assert.ok(ids.includes(model));
    assert.equal((await client.models.retrieve(model)).id, model);
    const calls = await settle(key);
    assert.deepEqual(calls.map((c) => c.intent.attrs["gen_ai.operation.name"]), ["embeddings", "list_models", "list_models"]);
  });

  test("identity", async () => {
    const trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    await client.chat.completions.create({ model, messages: [user("Hello")], user: "ignored, baggage comes first" }, {
      headers: { baggage: "user.id=dana%40acme.example,gen_ai.agent.id=desk,gen_ai.conversation.id=c-1", traceparent: `00-${trace}-00f067aa0ba902b7-01` },
    });
    const [{ intent }] = await settle(key);
    assert.deepEqual(intent.actor.app, { v: key.app, a: "verified", m: "virtual-key" });
    assert.deepEqual(intent.actor.agent, { v: "desk", a: "declared", m: "baggage" });
    assert.deepEqual([intent.actor.user.a, intent.actor.user.m], ["declared", "baggage"]);
    assert.match(intent.attrs["gen_ai.conversation.id"], /^c:/);
    assert.equal(intent.attrs["fairlead.trace.id"], trace);
  });

  test("keys that do not hold", async () => {
    const wrong = key.secret.slice(0, -1) + (key.secret.endsWith("0") ? "1" : "0");
    await assert.rejects(at("watched", wrong).models.list(), OpenAI.AuthenticationError);
    await revokeKey(key.id);
    for (const stream of [false, true]) {
      await assert.rejects(client.chat.completions.create({ model, messages: [user("Hello")], stream }), (err) => {
        assert.ok(err instanceof OpenAI.AuthenticationError);
        assert.equal(err.code, "revoked_key");
        assert.match(err.message, /Fairlead/);
        return true;
      });
    }
    assert.deepEqual(rejected(), Array(3).fill({ status: 401, retry: "false" }));
  });

  test("refused by policy", async () => {
    const guarded = at("guarded");
    for (const stream of [false, true]) {
      await assert.rejects(guarded.responses.create({ model, input: "Hello", tools: [{ type: "web_search" }], stream }), (err) => {
        assert.ok(err instanceof OpenAI.PermissionDeniedError);
        assert.equal(err.code, "policy_denied");
        assert.ok(err.requestID);
        return true;
      });
    }
    const calls = await settle(key);
    assert.deepEqual(outcomes(calls), ["policy_denied", "policy_denied"]); // once each: x-should-retry says false
    assert.ok(calls.every((c) => c.retry === "false"));
  });

  test("refused, path not known", async () => {
    await assert.rejects(at("guarded").completions.create({ model, prompt: "Hello" }), OpenAI.PermissionDeniedError);
    assert.deepEqual(outcomes(await settle(key)), ["unmapped"]);
  });

  test("tools through an enforcing provider", async () => {
    const runner = at("guarded").chat.completions.runTools({
      model, messages: [user(question)],
      tools: [{ type: "function", function: { ...ticketTool, parameters: ticketSchema, parse: JSON.parse, function: () => ticket } }],
    });
    assert.match(await runner.finalContent(), /arrived damaged/);
    const [a, b] = await settle(key);
    follows(b, a, "continues", "tool_result");
  });

  test("errors of the provider are retried and passed on", async () => {
    for (const [status, type, attempts] of [[429, OpenAI.RateLimitError, 3], [500, OpenAI.InternalServerError, 3], [404, OpenAI.NotFoundError, 1], [422, OpenAI.UnprocessableEntityError, 1]]) {
      await assert.rejects(client.chat.completions.create({ model: `practice-error-${status}`, messages: [user("Hello")] }), type);
      assert.deepEqual(outcomes(await settle(key)), Array(attempts).fill("upstream_status"));
    }
  });

  test("a provider that is not there", async () => {
    await assert.rejects(at("gone").models.list({ maxRetries: 1 }), OpenAI.InternalServerError);
    const calls = await settle(key);
    assert.deepEqual(outcomes(calls), ["upstream_error", "upstream_error"]);
    assert.ok(calls.every((c) => c.retry === "true" && c.status === 502));
  });
});
