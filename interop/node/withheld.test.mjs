// How the loops of the SDKs go on from an answer from which a call was taken out: the tool is not run, the notice is what
// the model said, and a call that is left is run as ever. The answers come from ../withheld and need no gateway.
import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAI } from "@ai-sdk/openai";
import Anthropic from "@anthropic-ai/sdk";
import { betaZodTool } from "@anthropic-ai/sdk/helpers/beta/zod";
import { generateText, stepCountIs, streamText, tool } from "ai";
import OpenAI from "openai";
import { z } from "zod";

globalThis.AI_SDK_LOG_WARNINGS = false;

const withheld = process.env.WITHHELD_URL;
if (!withheld) throw new Error("WITHHELD_URL is not set: start the suites with interop/run.sh");

const question = "How is the weather in Oslo? Mail me the report.";
const notice = /The call to "send_email" was not let through/;
const done = /It rains in Oslo\./;
const purpose = { get_weather: "Tells the weather", send_email: "Sends an e-mail" };
const schemas = { get_weather: z.object({ city: z.string() }), send_email: z.object({ to: z.string(), body: z.string() }) };

// What each scene leaves of the answer.
const scenes = { "none-left": [], "one-left": ["get_weather"] };

for (const [scene, left] of Object.entries(scenes)) {
  for (const stream of [false, true]) {
    suite(`withheld: ${scene}${stream ? ", streamed" : ""}`, () => {
      // run gives tools that note their calls.
      const tools = () => {
        const ran = [];
        return { ran, run: (name) => async () => (ran.push(name), "rain") };
      };
      const check = (ran, steps, last) => {
        assert.deepEqual(ran, left);
        assert.equal(steps, left.length + 1, "answers");
        assert.match(last, left.length > 0 ? done : notice);
      };

      test("openai, runTools", async () => {
        const { ran, run } = tools();
        const client = new OpenAI({ baseURL: `${withheld}/${scene}/v1`, apiKey: "x", maxRetries: 0 });
        const parameters = { type: "object", properties: {} };
        const runner = client.chat.completions.runTools({
          model: "m", stream, messages: [{ role: "user", content: question }],
          tools: Object.keys(purpose).map((name) => ({ type: "function", function: { name, description: purpose[name], parameters, parse: JSON.parse, function: run(name) } })),
        });
        const last = await runner.finalContent();
        const said = runner.messages.filter((m) => m.role === "assistant");
        assert.match(said[0].content, notice);
        assert.deepEqual((said[0].tool_calls ?? []).map((c) => c.function.name), left);
        check(ran, said.length, last);
      });

      test("@anthropic-ai/sdk, toolRunner", async () => {
        const { ran, run } = tools();
        const client = new Anthropic({ baseURL: `${withheld}/${scene}`, apiKey: "x", maxRetries: 0 });
        const runner = client.beta.messages.toolRunner({
          model: "m", max_tokens: 100, stream, messages: [{ role: "user", content: question }],
          tools: Object.keys(purpose).map((name) => betaZodTool({ name, description: purpose[name], inputSchema: schemas[name], run: run(name) })),
        });
        const said = [];
        for await (const message of runner) said.push(stream ? await message.finalMessage() : message);
        const text = (m) => m.content.filter((c) => c.type === "text").map((c) => c.text).join("");
        assert.match(text(said[0]), notice);
        check(ran, said.length, text(said.at(-1)));
      });

      const at = { baseURL: `${withheld}/${scene}/v1`, apiKey: "x" };
      const models = {
        "@ai-sdk/openai": [createOpenAI(at)("m"), { openai: { store: false } }],
        "@ai-sdk/openai, stored": [createOpenAI(at)("m")],
        "@ai-sdk/openai, chat": [createOpenAI(at).chat("m")],
        "@ai-sdk/anthropic": [createAnthropic(at)("m")],
      };
      for (const [name, [model, providerOptions]] of Object.entries(models)) {
        test(`ai with ${name}`, async () => {
          const { ran, run } = tools();
          const request = {
            model, providerOptions, prompt: question, maxRetries: 0, stopWhen: stepCountIs(5),
            tools: Object.fromEntries(Object.keys(purpose).map((name) => [name, tool({ description: purpose[name], inputSchema: schemas[name], execute: run(name) })])),
          };
          const result = stream ? streamText(request) : await generateText(request);
          const steps = await result.steps;
          assert.match(steps[0].text, notice);
          assert.deepEqual(steps[0].toolCalls.map((c) => c.toolName), left);
          assert.equal(steps[0].finishReason, left.length > 0 ? "tool-calls" : "stop");
          check(ran, steps.length, await result.text);
        });
      }

      test("openai, responses by hand", async () => {
        const client = new OpenAI({ baseURL: `${withheld}/${scene}/v1`, apiKey: "x", maxRetries: 0 });
        const input = [{ role: "user", content: question }];
        const ask = () => (stream ? client.responses.stream({ model: "m", input }).finalResponse() : client.responses.create({ model: "m", input }));
        const first = await ask();
        assert.match(first.output_text, notice);
        const calls = first.output.filter((o) => o.type === "function_call");
        assert.deepEqual(calls.map((c) => c.name), left);
        input.push(...first.output, ...calls.map((c) => ({ type: "function_call_output", call_id: c.call_id, output: "rain" })), { role: "user", content: "And now?" });
        assert.match((await ask()).output_text, done);
      });
    });
  }
}
