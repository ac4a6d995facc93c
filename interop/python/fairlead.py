"""What the suites share: a key of its own for each test, a record of what went over the wire, and the comparison of that
with what the ledger holds. The SDKs themselves are left as they are; only the HTTP transport that they use is watched."""

import json
import os
import subprocess
import unittest
import uuid

import httpx2

BINARY, GATEWAY = os.environ["FAIRLEAD_BIN"], os.environ["FAIRLEAD_URL"]

# The scene of all suites: a user asks for a ticket, the model calls read_ticket, gets this back and sums it up.
QUESTION = "Please read ticket 4711 and summarise it for me."
TICKET = 'Ticket 4711: the parcel “Größe L” arrived damaged.\n\tCosts: 12 € & "nothing" else </b> \u2028 done.'
SCHEMA = {"type": "object", "properties": {"id": {"type": "string"}}, "required": ["id"], "additionalProperties": False}
TOOL = {"name": "read_ticket", "description": "Read a ticket by its number"}


def user(content):
    return {"role": "user", "content": content}


class Exchange:
    """One request and its answer, as they went over the wire."""

    def __init__(self, request, response):
        self.sent, self.got = request.content, bytearray()
        self.status, self.id, self.retry = response.status_code, response.headers.get("fairlead-decision-id"), response.headers.get("x-should-retry")


class Watched(httpx2.SyncByteStream, httpx2.AsyncByteStream):
    """A body that keeps what is read from it."""

    def __init__(self, stream, keep):
        self.stream, self.keep = stream, keep

    def __iter__(self):
        for chunk in self.stream:
            self.keep.extend(chunk)
            yield chunk

    async def __aiter__(self):
        async for chunk in self.stream:
            self.keep.extend(chunk)
            yield chunk

    def close(self):
        self.stream.close()

    async def aclose(self):
        await self.stream.aclose()


seen = []


def watch():
    sync, asyn = httpx2.HTTPTransport.handle_request, httpx2.AsyncHTTPTransport.handle_async_request

    def note(request, response):
        seen.append(Exchange(request, response))
        response.stream = Watched(response.stream, seen[-1].got)
        return response

    def handle_request(self, request):
        request.read()
        return note(request, sync(self, request))

    async def handle_async_request(self, request):
        await request.aread()
        return note(request, await asyn(self, request))

    httpx2.HTTPTransport.handle_request, httpx2.AsyncHTTPTransport.handle_async_request = handle_request, handle_async_request


watch()


def fairlead(*args):
    return subprocess.run([BINARY, *args], check=True, stdout=subprocess.PIPE).stdout


class Call:
    """A call as the ledger has it."""

    def __init__(self, intent):
        self.id, self.intent, self.attrs, self.links = intent["id"], intent, intent["attrs"], intent.get("links", [])
        self.outcome = None

    @property
    def end(self):
        return self.attrs.get("fairlead.refusal") or self.outcome["attrs"]["fairlead.outcome"]

    @property
    def tools(self):
        return self.outcome["attrs"].get("fairlead.tools.called", [])


class Case(unittest.TestCase):
    """A test with a key of an app of its own: the practice model gives equal answers to equal questions, and within one
    app it could not be told which of them a call goes on from."""

    maxDiff = None

    def setUp(self):
        seen.clear()
        self.key = json.loads(fairlead("key", "create", "--app", f"python-{uuid.uuid4()}", "--json"))
        self.settled = 0

    def revoke(self):
        fairlead("key", "revoke", self.key["id"])

    def recorded(self):
        calls = {}
        for line in fairlead("tail", "--all", "--json", "-n", "1000000").splitlines():
            e = json.loads(line)["envelope"]
            if e["kind"] in ("call.intent/1", "call.refused/1") and e["attrs"].get("fairlead.key.id") == self.key["id"]:
                calls[e["id"]] = Call(e)
            if e["kind"] == "call.outcome/1":
                call = calls.get(next(l["to"] for l in e["links"] if l["rel"] == "completes"))
                if call:
                    call.outcome = e
        return list(calls.values())

    def rejected(self):
        """Takes the calls off the list that were refused for their key: one by one they are not recorded."""
        out = [(x.status, x.retry) for x in seen]
        seen.clear()
        return out

    def settle(self):
        """Checks that each call since the last settle is in the ledger once, with exactly the bytes that went over the
        wire in both directions, and returns the calls."""
        wire, calls = seen[:], self.recorded()[self.settled :]
        seen.clear()
        self.settled += len(calls)
        self.assertEqual([c.id for c in calls], [w.id for w in wire], "calls in the ledger, and calls on the wire")
        for call, w in zip(calls, wire):
            call.retry = w.retry
            if w.sent:
                self.assertEqual(fairlead("show", "--raw", "request", w.id), w.sent, f"request of {w.id}")
            if call.intent["kind"] == "call.refused/1":
                self.assertEqual(call.attrs["http.response.status_code"], w.status)
                continue
            self.assertIsNotNone(call.outcome, f"{w.id} has no outcome")
            self.assertEqual(fairlead("show", "--raw", "response", w.id), bytes(w.got), f"answer of {w.id}")
        return calls

    def follows(self, call, earlier, *relations):
        """Checks that a call was derived to go on from an earlier one, by the given relations and no other."""
        self.assertEqual(sorted((l["rel"], l["to"], l["a"]) for l in call.links), sorted((r, earlier.id, "derived") for r in relations))
        self.assertNotIn("fairlead.turns.declared", call.attrs, f"{call.id} has turns that were not recognised")
        self.assertNotIn("fairlead.state.unresolved", call.attrs, f"{call.id} refers to unknown state")
