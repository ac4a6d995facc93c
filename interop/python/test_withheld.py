"""How the loops of the SDKs go on from an answer from which a call was taken out: the tool is not run, the notice is what
the model said, and a call that is left is run as ever. The answers come from ../withheld and need no gateway."""

import os
import unittest

import anthropic
import openai
from anthropic import beta_tool
from openai.lib.responses_tool_runner import RegisteredFunction, ResponsesToolRunner

WITHHELD = os.environ["WITHHELD_URL"]
QUESTION = "How is the weather in Oslo? Mail me the report."
NOTICE, DONE = 'The call to "send_email" was not let through', "It rains in Oslo."
SCENES = {"none-left": [], "one-left": ["get_weather"]}


def scenes(one):
    """Runs a test for each scene, whole and streamed."""

    def test(self):
        for scene, left in SCENES.items():
            for stream in (False, True):
                with self.subTest(scene=scene, stream=stream):
                    one(self, scene, left, stream)

    return test


class Withheld(unittest.TestCase):
    def check(self, left, ran, texts):
        self.assertEqual(ran, left)
        self.assertIn(NOTICE, texts[0])
        self.assertEqual(len(texts), len(left) + 1)
        if left:
            self.assertIn(DONE, texts[-1])

    @scenes
    def test_anthropic_tool_runner(self, scene, left, stream):
        ran = []

        @beta_tool
        def get_weather(city: str) -> str:
            """Tells the weather

            Args:
                city: where
            """
            ran.append("get_weather")
            return "rain"

        @beta_tool
        def send_email(to: str, body: str) -> str:
            """Sends an e-mail

            Args:
                to: whom
                body: what
            """
            ran.append("send_email")
            return "sent"

        with anthropic.Anthropic(base_url=f"{WITHHELD}/{scene}", api_key="x", max_retries=0) as client:
            runner = client.beta.messages.tool_runner(
                model="m", max_tokens=100, messages=[{"role": "user", "content": QUESTION}], tools=[get_weather, send_email], stream=stream)
            answers = [m.get_final_message() if stream else m for m in runner]
        self.check(left, ran, ["".join(c.text for c in m.content if c.type == "text") for m in answers])

    @scenes
    def test_openai_responses_runner(self, scene, left, stream):
        ran = []

        def function(name):
            def execute(_arguments):
                ran.append(name)
                return "rain"

            tool = {"type": "function", "name": name, "parameters": {"type": "object", "properties": {}}, "strict": False}
            return RegisteredFunction(tool, execute)

        runner = ResponsesToolRunner(functions=[function("get_weather"), function("send_email")])
        with openai.OpenAI(base_url=f"{WITHHELD}/{scene}/v1", api_key="x", max_retries=0) as client:
            params = {"model": "m", "input": [{"role": "user", "content": QUESTION}], "store": False}
            turns = [t.response for t in runner.iterate(client, params, max_steps=5, stream=stream)]
        self.check(left, ran, [r.output_text for r in turns])

    @scenes
    def test_openai_chat_by_hand(self, scene, left, stream):
        messages = [{"role": "user", "content": QUESTION}]
        with openai.OpenAI(base_url=f"{WITHHELD}/{scene}/v1", api_key="x", max_retries=0) as client:

            def ask():
                if not stream:
                    return client.chat.completions.create(model="m", messages=messages).choices[0]
                with client.chat.completions.stream(model="m", messages=messages) as events:
                    return events.get_final_completion().choices[0]

            first = ask()
            self.assertEqual(first.finish_reason, "tool_calls" if left else "stop")
            calls = first.message.tool_calls or []
            messages += [first.message.model_dump(exclude_none=True, include={"role", "content", "tool_calls"})]
            messages += [{"role": "tool", "tool_call_id": c.id, "content": "rain"} for c in calls]
            messages += [{"role": "user", "content": "And now?"}]
            self.assertIn(NOTICE, first.message.content)
            self.assertEqual([c.function.name for c in calls], left)
            self.assertIn(DONE, ask().message.content)


if __name__ == "__main__":
    unittest.main()
