import asyncio

import anthropic
from anthropic import beta_tool

from fairlead import GATEWAY, QUESTION, SCHEMA, TICKET, TOOL, Case, user

BASE = {"model": "practice-1", "max_tokens": 1024}
TOOLS = [{**TOOL, "input_schema": SCHEMA}]


class Anthropic(Case):
    def at(self, provider, client=anthropic.Anthropic):
        return client(base_url=f"{GATEWAY}/{provider}", api_key=self.key["secret"])

    def setUp(self):
        super().setUp()
        self.client = self.at("watched-anthropic")
        self.addCleanup(self.client.close)

    def test_messages(self):
        first = self.client.messages.create(**BASE, messages=[user("Hello 🙂")])
        self.assertIn("Hello 🙂", first.content[0].text)
        self.client.messages.create(**BASE, messages=[user("Hello 🙂"), {"role": "assistant", "content": first.content}, user("And again?")])
        self.client.messages.create(**BASE, messages=[user("Hello 🙂"), {"role": "assistant", "content": first.content[0].text}, user("As text?")])
        a, b, c = self.settle()
        self.assertEqual(a.outcome["attrs"]["gen_ai.usage.output_tokens"], first.usage.output_tokens)
        self.follows(b, a, "continues")
        self.follows(c, a, "continues")

    def test_streamed(self):
        with self.client.messages.stream(model="practice-long-64", max_tokens=100_000, messages=[user("Hello")]) as stream:
            text = "".join(stream.text_stream)
        self.assertEqual(len(text), 64 << 10)
        (call,) = self.settle()
        self.assertTrue(call.attrs["gen_ai.request.stream"])
        self.assertEqual(call.end, "completed")

    def loop(self, ask):
        messages = [user(QUESTION)]
        first = ask(messages)
        use = next(c for c in first.content if c.type == "tool_use")
        self.assertEqual((use.name, use.input), ("read_ticket", {"id": "4711"}))
        result = {"type": "tool_result", "tool_use_id": use.id, "content": [{"type": "text", "text": TICKET}]}
        messages += [{"role": "assistant", "content": first.content}, user([result])]
        second = ask(messages)
        self.assertIn("arrived damaged", second.content[-1].text)
        messages += [{"role": "assistant", "content": second.content}, user("Thank you.")]
        ask(messages)
        a, b, c = self.settle()
        self.assertEqual(a.tools, ["read_ticket"])
        self.follows(b, a, "continues", "tool_result")
        self.follows(c, b, "continues")

    def test_tools(self):
        self.loop(lambda messages: self.client.messages.create(**BASE, messages=messages, tools=TOOLS, system="You are the support agent."))

    def test_tools_streamed(self):
        def ask(messages):
            with self.client.messages.stream(**BASE, messages=messages, tools=TOOLS) as stream:
                return stream.get_final_message()

        self.loop(ask)

    def test_async(self):
        async def one(messages):
            async with self.at("watched-anthropic", anthropic.AsyncAnthropic) as client:
                return await client.messages.create(**BASE, messages=messages, tools=TOOLS)

        self.loop(lambda messages: asyncio.run(one(messages)))

    def test_cache_breakpoint_moves(self):
        """Agents mark the newest message for the prompt cache, so that the mark moves on with each turn."""

        def marked(messages):
            *before, last = messages
            block = {"type": "text", "text": last["content"], "cache_control": {"type": "ephemeral"}}
            return [*before, {**last, "content": [block]}]

        messages = [user("Hello")]
        for text in ("How are you?", "Thank you."):
            answer = self.client.messages.create(**BASE, messages=marked(messages))
            messages += [{"role": "assistant", "content": answer.content[0].text}, user(text)]
        self.client.messages.create(**BASE, messages=marked(messages))
        a, b, c = self.settle()
        self.follows(b, a, "continues")
        self.follows(c, b, "continues")

    def test_tool_runner(self):
        @beta_tool
        def read_ticket(id: str) -> str:
            """Read a ticket by its number

            Args:
                id: the ticket's number
            """
            return TICKET

        for stream in (False, True):
            with self.subTest(stream=stream):
                runner = self.client.beta.messages.tool_runner(**BASE, messages=[user(QUESTION + f" Stream: {stream}.")], tools=[read_ticket], stream=stream)
                last = runner.until_done()
                self.assertIn("arrived damaged", last.content[-1].text)
                a, b = self.settle()
                self.assertEqual(a.tools, ["read_ticket"])
                # The runner may send the id of a thread and the result alone.
                relations = {l["rel"] for l in b.links if l["to"] == a.id and l["a"] == "derived"}
                self.assertIn("tool_result", relations)
                self.assertTrue(relations & {"continues", "refers"}, b.links)

    def test_count_tokens_and_models(self):
        self.assertGreater(self.client.messages.count_tokens(model=BASE["model"], messages=[user("Hello")]).input_tokens, 0)
        self.assertIn(BASE["model"], [m.id for m in self.client.models.list()])
        self.assertEqual(self.client.models.retrieve(BASE["model"]).id, BASE["model"])
        self.assertEqual([c.attrs["gen_ai.operation.name"] for c in self.settle()], ["count_tokens", "list_models", "list_models"])

    def test_identity(self):
        self.client.messages.create(**BASE, messages=[user("Hello")], extra_headers={"baggage": "user.id=dana,gen_ai.agent.id=desk"})
        self.client.messages.create(**BASE, messages=[user("Hello")], metadata={"user_id": "dana"})
        a, b = self.settle()
        self.assertEqual(a.intent["actor"]["app"], {"v": self.key["app"], "a": "verified", "m": "virtual-key"})
        self.assertEqual(a.intent["actor"]["agent"], {"v": "desk", "a": "declared", "m": "baggage"})
        self.assertEqual(a.intent["actor"]["user"]["v"], b.intent["actor"]["user"]["v"])

    def test_key_does_not_hold(self):
        self.revoke()
        for stream in (False, True):
            with self.assertRaises(anthropic.AuthenticationError) as caught:
                self.client.messages.create(**BASE, messages=[user("Hello")], stream=stream)
            self.assertEqual(caught.exception.body["error"]["code"], "revoked_key")
        self.assertEqual(self.rejected(), [(401, "false")] * 2)

    def test_refused(self):
        guarded = self.at("guarded-anthropic")
        for stream in (False, True):
            with self.assertRaises(anthropic.PermissionDeniedError) as caught:
                guarded.messages.create(**BASE, messages=[user("Hello")], tools=[{"type": "web_search_20250305", "name": "web_search"}], stream=stream)
            self.assertEqual(caught.exception.body["error"]["code"], "policy_denied")
            self.assertTrue(caught.exception.request_id)
        self.assertEqual([(c.end, c.retry) for c in self.settle()], [("policy_denied", "false")] * 2)

    def test_refused_path(self):
        with self.assertRaises(anthropic.PermissionDeniedError):
            self.at("guarded-anthropic").messages.batches.list()
        self.assertEqual([c.end for c in self.settle()], ["unmapped"])

    def test_errors_of_the_provider(self):
        for status, kind, attempts in ((429, anthropic.RateLimitError, 3), (500, anthropic.InternalServerError, 3), (404, anthropic.NotFoundError, 1)):
            with self.assertRaises(kind):
                self.client.messages.create(**{**BASE, "model": f"practice-error-{status}"}, messages=[user("Hello")])
            self.assertEqual([c.end for c in self.settle()], ["upstream_status"] * attempts)
