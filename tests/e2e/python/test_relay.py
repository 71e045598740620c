"""Two providers behind one endpoint: what the client gets, and what each provider sees."""

import json

import openai

from harness import (CLIENT_TOKEN, Case, ConfiguredProxy, Counter, Upstream, ask, client, for_module, provider_key,
                     wait_for)
import shapes


def setUpModule():
    global alpha, beta, proxy
    alpha, beta = for_module(Upstream("alpha")), for_module(Upstream("beta"))
    proxy = for_module(ConfiguredProxy([alpha.entry, beta.entry]))


class RelayCase(Case):
    def setUp(self):
        alpha.forget()
        beta.forget()
        self.openai = self.client(proxy)


class Models(RelayCase):
    def test_both_providers_are_listed(self):
        listed = [model.id for model in self.openai.models.list()]
        self.assertEqual(listed, sorted("%s/%s" % (name, model) for name in ("alpha", "beta")
                                        for model in shapes.model_ids(name)))

    def test_every_listed_model_can_be_retrieved(self):
        for model in self.openai.models.list():
            with self.subTest(model.id):
                self.assertEqual(self.openai.models.retrieve(model.id).id, model.id)

    def test_every_listed_model_can_be_called(self):
        for model in self.openai.models.list():
            with self.subTest(model.id):
                answer = self.openai.chat.completions.create(model=model.id, messages=ask())
                provider, _, name = model.id.partition("/")
                self.assertEqual(answer.model, name)
                self.assertEqual(answer.choices[0].message.content, provider + ": hello there")


    def test_a_bare_name_serves_where_one_provider_lists_it(self):
        answer = self.openai.chat.completions.create(model="only-at-beta", messages=ask())
        self.assertEqual(answer.choices[0].message.content, "beta: hello there")
        with self.assertRaises(openai.NotFoundError):
            self.openai.chat.completions.create(model="ok", messages=ask())


class Endpoints(RelayCase):
    def test_chat_whole(self):
        for provider in ("alpha", "beta"):
            answer = self.openai.chat.completions.create(model=provider + "/ok", messages=ask())
            self.assertEqual(answer.choices[0].message.content, provider + ": hello there")

    def test_chat_streamed(self):
        for provider in ("alpha", "beta"):
            chunks = list(self.openai.chat.completions.create(
                model=provider + "/ok", messages=ask("one two three"), stream=True,
                stream_options={"include_usage": True}))
            self.assertEqual([c.choices[0].delta.content for c in chunks[1:-2]],
                             [provider + ":", " one", " two", " three"])
            self.assertEqual(chunks[-2].choices[0].finish_reason, "stop")
            self.assertEqual(chunks[-1].usage.total_tokens, shapes.USAGE["total_tokens"])

    def test_tool_calls_whole(self):
        answer = self.openai.chat.completions.create(model="alpha/tool-calls", messages=ask())
        call = answer.choices[0].message.tool_calls[0]
        self.assertEqual(json.loads(call.function.arguments), {"city": "上海"})

    def test_tool_calls_streamed(self):
        chunks = list(self.openai.chat.completions.create(model="alpha/tool-calls", messages=ask(), stream=True))
        pieces = [call.function.arguments for c in chunks for call in c.choices[0].delta.tool_calls or []]
        self.assertEqual(json.loads("".join(pieces)), {"city": "上海"})
        self.assertEqual(chunks[-1].choices[0].finish_reason, "tool_calls")

    def test_completions(self):
        answer = self.openai.completions.create(model="alpha/ok", prompt="hello")
        self.assertEqual(answer.choices[0].text, "alpha: hello")

    def test_embeddings(self):
        for encoding in ({}, {"encoding_format": "float"}):
            answer = self.openai.embeddings.create(model="beta/embeddings", input=["one", "two"], **encoding)
            self.assertEqual([list(e.embedding) for e in answer.data], [shapes.VECTOR] * 2)

    def test_responses_whole(self):
        answer = self.openai.responses.create(model="alpha/ok", input="hello there")
        self.assertEqual(answer.output_text, "alpha: hello there")

    def test_responses_streamed(self):
        # These streams name their events and end without `[DONE]`: in a chunked answer that is a clean end.
        events = list(self.openai.responses.create(model="alpha/ok", input="hello there", stream=True))
        self.assertEqual(events[0].type, "response.created")
        self.assertEqual("".join(e.delta for e in events if e.type == "response.output_text.delta"),
                         "alpha: hello there")
        self.assertEqual(events[-1].type, "response.completed")

    def test_moderations(self):
        self.assertFalse(self.openai.moderations.create(model="alpha/ok", input="hello").results[0].flagged)

    def test_images(self):
        answer = self.openai.images.generate(model="beta/ok", prompt="a hill")
        self.assertEqual(answer.data[0].b64_json, "YmV0YQ==")

    def test_speech_is_relayed_byte_for_byte(self):
        answer = self.openai.audio.speech.create(model="alpha/ok", voice="alloy", input="hello")
        self.assertEqual(answer.content, shapes.AUDIO)


class WhatTheProviderSees(RelayCase):
    def test_only_the_model_changes_in_the_body(self):
        counter = Counter()
        self.client(proxy, http_client=counter.http).chat.completions.create(
            model="alpha/meta/llama-3",
            messages=[{"role": "system", "content": "\"model\": \"alpha/ok\""},
                      *ask("写一首诗 \U0001f600 \u2028 \\u0041")],
            temperature=0.1, seed=2**53 + 1,
            extra_body={"metadata": {"model": "alpha/ok"}, "tiny": 1e-300, "nothing": None})
        sent, = counter.bodies()
        self.assertEqual(sent.count(b'"alpha/meta/llama-3"'), 1)
        got, = alpha.seen()
        self.assertEqual(got["body"], sent.replace(b'"alpha/meta/llama-3"', b'"meta/llama-3"'))

    def test_only_the_named_provider_is_asked(self):
        self.openai.chat.completions.create(model="alpha/ok", messages=ask())
        self.assertEqual((len(alpha.seen()), len(beta.seen())), (1, 0))

    def test_the_key_is_swapped_and_the_token_stays_behind(self):
        for upstream in (alpha, beta):
            self.openai.chat.completions.create(
                model=upstream.name + "/ok", messages=ask(), stream=True,
                extra_headers={"X-Api-Key": CLIENT_TOKEN, "Api-Key": CLIENT_TOKEN, "Cookie": "of=the-client",
                               "X-Forwarded-For": "192.0.2.7", "Forwarded": "for=192.0.2.7",
                               "X-Real-Ip": "192.0.2.7"}).close()
            got, = upstream.seen()
            headers = got["headers"]
            self.assertEqual(headers["authorization"], "Bearer " + provider_key(upstream.name))
            self.assertNotIn(CLIENT_TOKEN, json.dumps(headers))
            self.assertEqual(headers["accept-encoding"], "identity")
            self.assertEqual(headers["host"], upstream.root.removeprefix("http://"))
            for left_out in ("x-api-key", "api-key", "cookie", "x-forwarded-for", "forwarded", "x-real-ip"):
                self.assertNotIn(left_out, headers)

    def test_the_models_call_carries_the_key_too(self):
        for upstream in (alpha, beta):
            def asked_for_models():
                return upstream.seen("GET")
            with ConfiguredProxy([upstream.entry]) as fresh, client(fresh) as sdk:
                list(sdk.models.list())
                got = wait_for(asked_for_models, "the proxy to ask for the model list")
            self.assertEqual({request["path"] for request in got}, {"/v1/models"})
            self.assertEqual({request["headers"]["authorization"] for request in got},
                             {"Bearer " + provider_key(upstream.name)})

    def test_other_headers_and_the_query_pass(self):
        self.openai.chat.completions.create(
            model="alpha/ok", messages=ask(), extra_headers={"OpenAI-Beta": "assistants=v2", "X-Mine": "1"},
            extra_query={"api-version": "2026-01-01"})
        got, = alpha.seen()
        self.assertEqual(got["path"], "/v1/chat/completions?api-version=2026-01-01")
        self.assertEqual(got["headers"]["openai-beta"], "assistants=v2")
        self.assertEqual(got["headers"]["x-mine"], "1")
        self.assertIn("x-stainless-lang", got["headers"], "what the SDK says of itself is the provider's to know")


class WhatTheClientSees(RelayCase):
    def create(self, **options):
        return self.openai.chat.completions.with_raw_response.create(model="beta/ok", messages=ask(), **options)

    def test_added_headers(self):
        raw = self.create()
        self.assertEqual(raw.headers["x-ai-proxy-provider"], "beta")
        self.assertEqual(raw.headers["x-request-id"], "beta-1", "the provider's own id is kept")
        self.assertEqual(raw.parse()._request_id, "beta-1")

    def test_the_clients_request_id_wins(self):
        raw = self.create(extra_headers={"X-Request-Id": "mine-42"})
        self.assertEqual(raw.headers["x-request-id"], "mine-42")

    def test_added_headers_on_a_stream(self):
        with self.openai.chat.completions.with_streaming_response.create(
                model="beta/ok", messages=ask(), stream=True) as raw:
            self.assertEqual(raw.headers["x-ai-proxy-provider"], "beta")
            self.assertEqual(raw.headers["x-request-id"], "beta-1")
            self.assertEqual(raw.headers["content-type"], "text/event-stream; charset=utf-8")
            self.assertEqual(raw.headers["cache-control"], "no-cache")
            self.assertEqual(raw.headers["x-accel-buffering"], "no")
            self.assertEqual(list(raw.iter_lines())[-2:], ["data: [DONE]", ""])

    def test_what_belongs_to_the_providers_connection_stays_behind(self):
        headers = self.create().headers
        self.assertNotIn("set-cookie", headers)
        self.assertNotIn("keep-alive", headers)

    def test_wrong_token_for_the_model_list(self):
        with self.assertRaises(openai.AuthenticationError):
            self.client(proxy, "sk-wrong").models.list()
