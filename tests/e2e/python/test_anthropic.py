"""Anthropic's SDK: with a provider that speaks its format, and with one that speaks OpenAI's alone."""

import contextlib
import json

import anthropic

from harness import CLIENT_TOKEN, DEADLINE, Case, ConfiguredProxy, Upstream, ask, for_module, provider_key

WEATHER = {"name": "weather", "description": "The weather of a city.",
           "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


def setUpModule():
    global native, plain, proxy
    native = for_module(Upstream("native"))
    plain = for_module(Upstream("plain"))
    speaks_both = {"name": "native", "url": native.root + "/v1", "anthropic_url": native.root + "/v1",
                   "key": provider_key("native")}
    proxy = for_module(ConfiguredProxy([speaks_both, plain.entry], max_retries=0, stream_heartbeat=0.2,
                                       models={"claude-best": "plain/ok"}))


class AnthropicCase(Case):
    """The same tests for either provider."""

    def setUp(self):
        self.upstream().forget()
        self.sdk = self.enterContext(contextlib.closing(anthropic.Anthropic(
            base_url=proxy.root, api_key=CLIENT_TOKEN, max_retries=0, timeout=DEADLINE)))

    def create(self, model="ok", messages=None, **options):
        return self.sdk.messages.create(model="%s/%s" % (self.name, model), max_tokens=100,
                                        messages=messages or ask(), **options)

    def stream(self, model="ok", **options):
        return self.sdk.messages.stream(model="%s/%s" % (self.name, model), max_tokens=100,
                                        messages=ask("one two"), **options)


class Both:
    def test_message(self):
        message = self.create()
        self.assertEqual(message.content[0].text, self.name + ": hello there")
        self.assertEqual((message.type, message.role, message.stop_reason), ("message", "assistant", "end_turn"))
        self.assertEqual((message.usage.input_tokens, message.usage.output_tokens), (5, 7))
        self.assertTrue(message._request_id)

    def test_a_bearer_token_does_as_well(self):
        with contextlib.closing(anthropic.Anthropic(base_url=proxy.root, auth_token=CLIENT_TOKEN)) as sdk:
            message = sdk.messages.create(model=self.name + "/ok", max_tokens=9, messages=ask())
        self.assertEqual(message.content[0].text, self.name + ": hello there")

    def test_stream(self):
        with self.stream() as stream:
            self.assertEqual(list(stream.text_stream), [self.name + ":", " one", " two"])
            message = stream.get_final_message()
        self.assertEqual(message.content[0].text, self.name + ": one two")
        self.assertEqual(message.stop_reason, "end_turn")
        self.assertEqual((message.usage.input_tokens, message.usage.output_tokens), (5, 7))

    def test_events_of_a_raw_stream(self):
        kinds = [event.type for event in self.create(stream=True)]
        self.assertEqual(kinds[:2], ["message_start", "content_block_start"])
        self.assertEqual(kinds[-3:], ["content_block_stop", "message_delta", "message_stop"])

    def test_tool_use(self):
        message = self.create("tool-calls", tools=[WEATHER])
        self.assertEqual(message.stop_reason, "tool_use")
        call = message.content[-1]
        self.assertEqual((call.type, call.name, call.input), ("tool_use", "weather", {"city": "上海"}))
        # What was answered goes back as it is, with the result: the model is asked again.
        history = [*ask(), {"role": "assistant", "content": message.content},
                   {"role": "user", "content": [
                       {"type": "tool_result", "tool_use_id": call.id, "content": "rain"},
                       {"type": "text", "text": "so what?"}]}]
        self.assertEqual(self.create(messages=history, tools=[WEATHER]).stop_reason, "end_turn")

    def test_tool_use_streamed(self):
        with self.stream("tool-calls", tools=[WEATHER]) as stream:
            message = stream.get_final_message()
        self.assertEqual(message.stop_reason, "tool_use")
        self.assertEqual(message.content[-1].input, {"city": "上海"})

    def test_a_silent_provider_is_waited_for_through_heartbeats(self):
        with self.sdk.messages.with_streaming_response.create(
                model=self.name + "/late-ping", max_tokens=9, messages=ask(), stream=True) as raw:
            lines = raw.iter_lines()
            for line in lines:
                if line == ": keep-alive":
                    break
            self.upstream().open_gate("ping")
            self.assertIn("event: message_stop", list(lines))
        # The answer begins with a heartbeat: no event of the message is there yet.
        with self.stream("gated-ping-of-the-sdk") as stream:
            texts = iter(stream.text_stream)
            self.upstream().open_gate("ping-of-the-sdk")
            self.assertEqual("".join(texts), self.name + ": one two")

    def test_errors(self):
        for status, kind in ((400, anthropic.BadRequestError), (401, anthropic.AuthenticationError),
                             (403, anthropic.PermissionDeniedError), (404, anthropic.NotFoundError),
                             (429, anthropic.RateLimitError), (500, anthropic.InternalServerError)):
            with self.assertRaises(kind) as raised:
                self.create("status-%d" % status)
            self.assertEqual(raised.exception.status_code, status)
            # Ahead of it stands that the token is valid, where the provider refuses the key.
            self.assertTrue(raised.exception.body["error"]["message"].endswith("scripted %d" % status))
            with self.assertRaises(kind):
                self.create("text-%d" % status, stream=True)

    def test_a_broken_stream_raises(self):
        for model in ("break-mid-stream", "reset-mid-stream"):
            with self.assertRaises(anthropic.APIError) as raised, self.stream(model) as stream:
                list(stream)
            self.assertIn("upstream_broken", str(raised.exception))

    def test_a_providers_own_error_in_the_stream_raises(self):
        with self.assertRaises(anthropic.APIError) as raised, self.stream("error-event") as stream:
            list(stream)
        self.assertIn("the provider gave up", str(raised.exception))


class Native(Both, AnthropicCase):
    name = "native"

    @staticmethod
    def upstream():
        return native

    def test_what_the_provider_gets(self):
        self.create(messages=ask(), extra_headers={"anthropic-beta": "some-beta"})
        [seen] = native.seen()
        self.assertEqual(seen["path"], "/v1/messages")
        self.assertEqual(seen["headers"]["x-api-key"], provider_key("native"))
        self.assertNotIn("authorization", seen["headers"])
        self.assertEqual(seen["headers"]["anthropic-version"], self.sdk.default_headers["anthropic-version"])
        self.assertEqual(seen["headers"]["anthropic-beta"], "some-beta")

    def test_tokens_are_counted(self):
        counted = self.sdk.messages.count_tokens(model="native/ok", messages=ask())
        self.assertEqual(counted.input_tokens, 5)


class Translated(Both, AnthropicCase):
    name = "plain"

    @staticmethod
    def upstream():
        return plain

    def test_a_name_of_anthropics_may_stand_for_any_model(self):
        message = self.sdk.messages.create(model="claude-best", max_tokens=9, messages=ask())
        self.assertEqual((message.model, message.content[0].text), ("claude-best", "plain: hello there"))

    def test_what_the_provider_gets(self):
        image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}}
        self.create(messages=[{"role": "user", "content": [{"type": "text", "text": "what?"}, image]}],
                    system=[{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
                    stop_sequences=["END"], tool_choice={"type": "any"}, tools=[WEATHER],
                    thinking={"type": "enabled", "budget_tokens": 1024})
        [seen] = plain.seen()
        self.assertEqual(seen["path"], "/v1/chat/completions")
        self.assertEqual(seen["headers"]["authorization"], "Bearer " + provider_key("plain"))
        self.assertFalse([name for name in seen["headers"] if name.startswith("anthropic-")])
        self.assertEqual(json.loads(seen["body"]), {
            "model": "ok", "max_tokens": 100, "stop": ["END"], "tool_choice": "required",
            "messages": [{"role": "system", "content": "Be brief."},
                         {"role": "user", "content": [
                             {"type": "text", "text": "what?"},
                             {"type": "image_url", "image_url": {"url": "data:image/png;base64," + PIXEL}}]}],
            "tools": [{"type": "function", "function": {
                "name": "weather", "description": WEATHER["description"], "parameters": WEATHER["input_schema"]}}]})

    def test_what_cannot_be_translated_is_refused_by_name(self):
        for field, options in (("top_k", {"extra_body": {"top_k": 3}}),
                               ("tools.0.type", {"tools": [{"type": "web_search_20250305", "name": "web_search"}]})):
            with self.assertRaises(anthropic.BadRequestError) as raised:
                self.create(**options)
            self.assertIn(field, raised.exception.body["error"]["message"])
        self.assertEqual(plain.seen(), [])

    def test_tokens_are_estimated(self):
        counted = self.sdk.messages.count_tokens(model="plain/ok", messages=ask())
        self.assertGreater(counted.input_tokens, 10)
        self.assertTrue(counted.estimated)
        self.assertEqual(plain.seen(), [])


class Refused(AnthropicCase):
    """What the proxy says itself."""

    name = "native"

    @staticmethod
    def upstream():
        return native

    def test_a_wrong_token(self):
        with contextlib.closing(anthropic.Anthropic(base_url=proxy.root, api_key="sk-wrong")) as sdk:
            with self.assertRaises(anthropic.AuthenticationError) as raised:
                sdk.messages.create(model="native/ok", max_tokens=9, messages=ask())
        error = raised.exception
        self.assertEqual(error.body["error"]["type"], "authentication_error")
        self.assertEqual(error.body["request_id"], error.request_id)

    def test_an_unknown_model(self):
        with self.assertRaises(anthropic.NotFoundError) as raised:
            self.sdk.messages.create(model="nobody/ok", max_tokens=9, messages=ask())
        self.assertEqual(raised.exception.body["error"]["reason"], "model_not_found")

    def test_models_can_be_listed(self):
        self.assertIn("plain/ok", [model.id for model in self.sdk.models.list()])
