import asyncio
import json

import openai
from pydantic import BaseModel

from fairlead import GATEWAY, QUESTION, SCHEMA, TICKET, TOOL, Case, user

MODEL = "practice-1"
CHAT_TOOLS = [{"type": "function", "function": {**TOOL, "parameters": SCHEMA, "strict": True}}]
RESPONSE_TOOLS = [{"type": "function", **TOOL, "parameters": SCHEMA, "strict": True}]


class OpenAI(Case):
    def at(self, provider, secret=None, client=openai.OpenAI):
        return client(base_url=f"{GATEWAY}/{provider}/v1", api_key=secret or self.key["secret"])

    def setUp(self):
        super().setUp()
        self.client = self.at("watched")
        self.addCleanup(self.client.close)

    def test_chat(self):
        first = self.client.chat.completions.create(model=MODEL, messages=[user("Hello 🙂")])
        self.assertIn("Hello 🙂", first.choices[0].message.content)
        self.client.chat.completions.create(model=MODEL, messages=[user("Hello 🙂"), first.choices[0].message, user("And again?")])
        a, b = self.settle()
        self.assertEqual(a.outcome["attrs"]["gen_ai.usage.output_tokens"], first.usage.completion_tokens)
        self.follows(b, a, "continues")

    def test_raw_response(self):
        raw = self.client.chat.completions.with_raw_response.create(model=MODEL, messages=[user("Hello")])
        self.assertIn("fairlead-decision-id", raw.headers)
        (a,) = self.settle()  # which compares the bytes
        self.assertEqual(raw.parse().id, a.outcome["attrs"]["gen_ai.response.id"])

    def test_chat_streamed(self):
        stream = self.client.chat.completions.create(model="practice-long-64", messages=[user("Hello")], stream=True)
        text = "".join(c.choices[0].delta.content or "" for c in stream if c.choices)
        self.assertEqual(len(text), 64 << 10)
        (call,) = self.settle()
        self.assertTrue(call.attrs["gen_ai.request.stream"])
        self.assertEqual(call.end, "completed")

    def test_chat_tools(self):
        messages = [{"role": "developer", "content": "You are the support agent."}, user(QUESTION)]
        first = self.client.chat.completions.create(model=MODEL, messages=messages, tools=CHAT_TOOLS)
        (use,) = first.choices[0].message.tool_calls
        self.assertEqual(json.loads(use.function.arguments), {"id": "4711"})
        messages += [first.choices[0].message, {"role": "tool", "tool_call_id": use.id, "content": TICKET}]
        second = self.client.chat.completions.create(model=MODEL, messages=messages, tools=CHAT_TOOLS)
        self.assertIn("arrived damaged", second.choices[0].message.content)
        a, b = self.settle()
        self.assertEqual(a.tools, ["read_ticket"])
        self.follows(b, a, "continues", "tool_result")

    def test_chat_tools_streamed(self):
        messages = [user(QUESTION)]
        with self.client.chat.completions.stream(model=MODEL, messages=messages, tools=CHAT_TOOLS) as stream:
            first = stream.get_final_completion()
        (use,) = first.choices[0].message.tool_calls
        messages += [first.choices[0].message, {"role": "tool", "tool_call_id": use.id, "content": TICKET}]
        with self.client.chat.completions.stream(model=MODEL, messages=messages, tools=CHAT_TOOLS) as stream:
            second = stream.get_final_completion()
        self.assertIn("arrived damaged", second.choices[0].message.content)
        a, b = self.settle()
        self.follows(b, a, "continues", "tool_result")

    def test_chat_parsed(self):
        class Ticket(BaseModel):
            id: str

        res = self.client.chat.completions.parse(model=MODEL, messages=[user(QUESTION)], response_format=Ticket)
        self.assertIsInstance(res.choices[0].message.parsed, Ticket)
        self.client.chat.completions.create(model=MODEL, messages=[user(QUESTION), res.choices[0].message, user("Thanks.")])
        a, b = self.settle()
        self.follows(b, a, "continues")

    def test_async(self):
        async def scene():
            async with self.at("watched", client=openai.AsyncOpenAI) as client:
                first = await client.responses.create(model=MODEL, input=[user(QUESTION)], tools=RESPONSE_TOOLS)
                result = {"type": "function_call_output", "call_id": first.output[-1].call_id, "output": TICKET}
                stream = await client.responses.create(model=MODEL, input=[user(QUESTION), *first.output, result], tools=RESPONSE_TOOLS, stream=True)
                return [e async for e in stream][-1].response

        self.assertIn("arrived damaged", asyncio.run(scene()).output_text)
        a, b = self.settle()
        self.follows(b, a, "continues", "tool_result")

    def test_responses(self):
        for store in (True, False):
            with self.subTest(store=store):
                items = [user(QUESTION + f" Store: {store}.")]
                first = self.client.responses.create(model=MODEL, input=items, tools=RESPONSE_TOOLS, store=store)
                use = next(o for o in first.output if o.type == "function_call")
                items += [*first.output, {"type": "function_call_output", "call_id": use.call_id, "output": TICKET}]
                second = self.client.responses.create(model=MODEL, input=items, tools=RESPONSE_TOOLS, store=store)
                self.assertIn("arrived damaged", second.output_text)
                items += [*second.output, user("Thank you.")]
                self.client.responses.create(model=MODEL, input=items, tools=RESPONSE_TOOLS, store=store)
                a, b, c = self.settle()
                self.follows(b, a, "continues", "tool_result")
                self.follows(c, b, "continues")

    def test_responses_text_then_items(self):
        first = self.client.responses.create(model=MODEL, input="Hello")
        self.client.responses.create(model=MODEL, input=[user("Hello"), *first.output, user("And again?")])
        a, b = self.settle()
        self.follows(b, a, "continues")

    def test_responses_previous(self):
        with self.client.responses.stream(model=MODEL, input=QUESTION, tools=RESPONSE_TOOLS) as stream:
            first = stream.get_final_response()
        result = {"type": "function_call_output", "call_id": first.output[-1].call_id, "output": TICKET}
        second = self.client.responses.create(model=MODEL, tools=RESPONSE_TOOLS, previous_response_id=first.id, input=[result])
        self.assertIn("arrived damaged", second.output_text)
        a, b = self.settle()
        self.follows(b, a, "refers", "tool_result")

    def test_embeddings_and_models(self):
        self.assertEqual(len(self.client.embeddings.create(model="practice-embed", input=["one", "two"]).data), 2)
        self.assertIn(MODEL, [m.id for m in self.client.models.list()])
        self.assertEqual(self.client.models.retrieve(MODEL).id, MODEL)
        self.assertEqual([c.attrs["gen_ai.operation.name"] for c in self.settle()], ["embeddings", "list_models", "list_models"])

    def test_identity(self):
        self.client.chat.completions.create(model=MODEL, messages=[user("Hello")], extra_headers={"baggage": "user.id=dana,gen_ai.agent.id=desk"})
        self.client.chat.completions.create(model=MODEL, messages=[user("Hello")], user="dana")
        a, b = self.settle()
        self.assertEqual(a.intent["actor"]["app"], {"v": self.key["app"], "a": "verified", "m": "virtual-key"})
        self.assertEqual(a.intent["actor"]["agent"], {"v": "desk", "a": "declared", "m": "baggage"})
        self.assertEqual(a.intent["actor"]["user"]["v"], b.intent["actor"]["user"]["v"])
        self.assertEqual([c.intent["actor"]["user"]["m"] for c in (a, b)], ["baggage", "body"])

    def test_key_does_not_hold(self):
        self.revoke()
        for stream in (False, True):
            with self.assertRaises(openai.AuthenticationError) as caught:
                self.client.chat.completions.create(model=MODEL, messages=[user("Hello")], stream=stream)
            self.assertEqual(caught.exception.code, "revoked_key")
        with self.assertRaises(openai.AuthenticationError):
            self.at("watched", self.key["secret"][:-3]).models.list()
        self.assertEqual(self.rejected(), [(401, "false")] * 3)

    def test_refused(self):
        guarded = self.at("guarded")
        for stream in (False, True):
            with self.assertRaises(openai.PermissionDeniedError) as caught:
                guarded.responses.create(model=MODEL, input="Hello", tools=[{"type": "web_search"}], stream=stream)
            self.assertEqual(caught.exception.code, "policy_denied")
            self.assertTrue(caught.exception.request_id)
        calls = self.settle()
        self.assertEqual([(c.end, c.retry) for c in calls], [("policy_denied", "false")] * 2)

    def test_refused_path(self):
        with self.assertRaises(openai.PermissionDeniedError):
            self.at("guarded").completions.create(model=MODEL, prompt="Hello")
        self.assertEqual([c.end for c in self.settle()], ["unmapped"])

    def test_errors_of_the_provider(self):
        for status, kind, attempts in ((429, openai.RateLimitError, 3), (500, openai.InternalServerError, 3), (404, openai.NotFoundError, 1)):
            with self.assertRaises(kind):
                self.client.chat.completions.create(model=f"practice-error-{status}", messages=[user("Hello")])
            self.assertEqual([c.end for c in self.settle()], ["upstream_status"] * attempts)

    def test_provider_gone(self):
        with self.assertRaises(openai.InternalServerError):
            self.at("gone").with_options(max_retries=1).models.list()
        self.assertEqual([(c.end, c.retry) for c in self.settle()], [("upstream_error", "true")] * 2)
