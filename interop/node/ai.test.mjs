import assert from "node:assert/strict";
import { beforeEach, suite, test } from "node:test";
import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAI } from "@ai-sdk/openai";
import { APICallError, RetryError, embedMany, generateText, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";
import { follows, gateway, newKey, outcomes, question, refers, rejected, revokeKey, settle, ticket, ticketTool, toolsCalled } from "./fairlead.mjs";

globalThis.AI_SDK_LOG_WARNINGS = false;

const tools = {
  read_ticket: tool({ description: ticketTool.description, inputSchema: z.object({ id: z.string() }), execute: async ({ id }) => (id === "4711" ? ticket : "no such ticket") }),
};

// How each kind of model is made. A stored conversation is not sent again: item ids stand for what the model said.
const kinds = {
  "@ai-sdk/openai": { at: openai, elsewhere: (key) => openai(key, "guarded/other"), model: (p, name) => p(name), options: { openai: { store: false } } },
  "@ai-sdk/openai, stored": { at: openai, elsewhere: (key) => openai(key, "guarded/other"), model: (p, name) => p(name), stored: true },
  "@ai-sdk/openai, chat": { at: openai, elsewhere: (key) => openai(key, "guarded/other"), model: (p, name) => p.chat(name) },
  "@ai-sdk/anthropic": { at: anthropic, elsewhere: (key) => createAnthropic({ baseURL: `${gateway}/guarded-anthropic/v2`, apiKey: key.secret }), model: (p, name) => p(name) },
};

function openai(key, provider) {
  return createOpenAI({ baseURL: `${gateway}/${provider}/v1`, apiKey: key.secret });
}

function anthropic(key, provider) {
  return createAnthropic({ baseURL: `${gateway}/${provider}-anthropic/v1`, apiKey: key.secret });
}

for (const [name, kind] of Object.entries(kinds)) {
  suite(`ai with ${name}`, () => {
    let key;
    beforeEach(async () => {
      key = await newKey();
    });
    const at = (provider, model = "practice-1") => ({ model: kind.model(kind.at(key, provider), model), providerOptions: kind.options });

    test("generateText", async () => {
      const messages = [{ role: "user", content: "Hello 🙂" }];
      const first = await generateText({ ...at("watched"), messages });
      assert.match(first.text, /Hello 🙂/);
      await generateText({ ...at("watched"), messages: [...messages, ...first.response.messages, { role: "user", content: "And again?" }] });
      const [a, b] = await settle(key);
      assert.equal(a.outcome.attrs["gen_ai.usage.output_tokens"], first.usage.outputTokens);
      if (kind.stored) refers(b, a);
      else follows(b, a, "continues");
    });

    test("streamText", async () => {
      const result = streamText({ ...at("watched", "practice-long-64"), prompt: "Hello", maxOutputTokens: 100_000 });
      let text = "";
      for await (const piece of result.textStream) text += piece;
      assert.equal(text.length, 64 << 10);
      const [call] = await settle(key);
      assert.equal(call.intent.attrs["gen_ai.request.stream"], true);
      assert.deepEqual(outcomes([call]), ["completed"]);
    });

    for (const provider of ["watched", "guarded"]) {
      for (const run of [generateText, streamText]) {
        test(`${run.name}, tools, ${provider}`, async () => {
          const messages = [{ role: "user", content: question }];
          const result = await run({ ...at(provider), tools, messages, system: "You are the support agent.", stopWhen: stepCountIs(4), onError() {} });
          assert.match(await result.text, /arrived damaged/);
          const more = [...messages, ...(await result.response).messages, { role: "user", content: "Thank you." }];
          await (await run({ ...at(provider), tools, messages: more, system: "You are the support agent." })).text;
          const [a, b, c] = await settle(key);
          assert.deepEqual(toolsCalled(a), ["read_ticket"]);
          if (kind.stored) {
            assert.ok(refers(b, a).includes("tool_result"));
            refers(c, b);
          } else {
            follows(b, a, "continues", "tool_result");
            follows(c, b, "continues");
          }
        });
      }
    }

    test("identity", async () => {
      await generateText({ ...at("watched"), prompt: "Hello", headers: { baggage: "user.id=dana,gen_ai.agent.id=desk" } });
      const [{ intent }] = await settle(key);
      assert.deepEqual(intent.actor.app, { v: key.app, a: "verified", m: "virtual-key" });
      assert.deepEqual(intent.actor.agent, { v: "desk", a: "declared", m: "baggage" });
      assert.deepEqual([intent.actor.user.a, intent.actor.user.m], ["declared", "baggage"]);
    });

    const isCallError = (status, code) => (err) => {
      assert.ok(APICallError.isInstance(err), String(err));
      assert.equal(err.statusCode, status);
      assert.ok(err.responseBody.includes(`"code":"${code}"`), err.responseBody);
      assert.match(err.message, /Fairlead/);
      assert.equal(err.isRetryable, false);
      return true;
    };

    test("a key that does not hold", async () => {
      await revokeKey(key.id);
      await assert.rejects(generateText({ ...at("watched"), prompt: "Hello" }), isCallError(401, "revoked_key"));
      let seen;
      await streamText({ ...at("watched"), prompt: "Hello", onError: ({ error }) => void (seen = error) }).consumeStream();
      isCallError(401, "revoked_key")(seen);
      assert.deepEqual(rejected(), Array(2).fill({ status: 401, retry: "false" }));
    });

    test("refused, path not known", async () => {
      const provider = kind.elsewhere(key);
      await assert.rejects(generateText({ model: kind.model(provider, "practice-1"), prompt: "Hello" }), isCallError(403, "unmapped"));
      assert.deepEqual(outcomes(await settle(key)), ["unmapped"]);
    });

    test("errors of the provider are passed on", async () => {
      for (const [status, attempts] of [[429, 2], [500, 2], [404, 1]]) {
        await assert.rejects(generateText({ ...at("watched", `practice-error-${status}`), prompt: "Hello", maxRetries: 1 }), (err) => {
          const cause = RetryError.isInstance(err) ? err.lastError : err;
          assert.ok(APICallError.isInstance(cause), String(err));
          assert.equal(cause.statusCode, status);
          return true;
        });
        assert.deepEqual(outcomes(await settle(key)), Array(attempts).fill("upstream_status"));
      }
    });
  });
}

suite("ai, the rest", () => {
  let key;
  beforeEach(async () => {
    key = await newKey();
  });

  test("tools of the provider's own are refused", async () => {
    const provider = openai(key, "guarded");
    await assert.rejects(generateText({ model: provider("practice-1"), prompt: "Hello", tools: { web_search: provider.tools.webSearch({}) } }), (err) => {
      assert.ok(APICallError.isInstance(err), String(err));
      assert.equal(err.statusCode, 403);
      return true;
    });
    const calls = await settle(key);
    assert.deepEqual(outcomes(calls), ["policy_denied"]);
  });

  test("embeddings", async () => {
    const { embeddings } = await embedMany({ model: openai(key, "watched").embedding("practice-embed"), values: ["one", "two"] });
    assert.equal(embeddings.length, 2);
    const [call] = await settle(key);
    assert.equal(call.intent.attrs["gen_ai.operation.name"], "embeddings");
  });
});
