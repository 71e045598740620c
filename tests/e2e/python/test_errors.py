"""Every error reaches the caller as the class that the SDK documents, with enough in it to act on."""

import openai

from harness import Case, ConfiguredProxy, Upstream, ask, for_module, unreachable_url


def setUpModule():
    global alpha, proxy
    alpha = for_module(Upstream("alpha"))
    held, url = unreachable_url()
    for_module(held)
    proxy = for_module(ConfiguredProxy([alpha.entry, "down|%s|sk-of-no-use-to-anybody" % url],
                                       non_stream_timeout=1, stream_timeout=1, max_response_size=1 << 20))


class ErrorCase(Case):
    def setUp(self):
        alpha.forget()
        self.openai = self.client(proxy)

    def refused(self, error, model, client=None, **options):
        with self.assertRaises(error) as raised:
            (client or self.openai).chat.completions.create(model=model, messages=ask(), **options)
        self.assertIs(type(raised.exception), error)
        return raised.exception


class FromTheProvider(ErrorCase):
    CLASSES = {
        400: openai.BadRequestError,
        401: openai.AuthenticationError,
        403: openai.PermissionDeniedError,
        404: openai.NotFoundError,
        409: openai.ConflictError,
        422: openai.UnprocessableEntityError,
        429: openai.RateLimitError,
        500: openai.InternalServerError,
        502: openai.InternalServerError,
        503: openai.InternalServerError,
    }

    def test_status_and_body_pass(self):
        for status, error in self.CLASSES.items():
            for stream in (False, True):
                with self.subTest(status, stream=stream):
                    alpha.forget()
                    raised = self.refused(error, "alpha/status-%d" % status, stream=stream)
                    self.assertEqual(raised.status_code, status)
                    self.assertEqual(raised.code, "scripted_%d" % status)
                    self.assertEqual(raised.body["message"], "scripted %d" % status)
                    self.assertEqual(raised.request_id, "alpha-1")
                    self.assertNotIn("x-should-retry", raised.response.headers,
                                     "whether a retry helps is for the provider to say")
                    self.assertEqual(len(alpha.seen()), 1, "a lone provider's answer is the answer")

    def test_a_body_that_is_not_json_is_wrapped(self):
        for status, error in ((400, openai.BadRequestError), (502, openai.InternalServerError)):
            raised = self.refused(error, "alpha/text-%d" % status)
            self.assertEqual(raised.body["code"], status)
            self.assertIn("scripted failure", raised.body["message"])


class FromTheProxy(ErrorCase):
    def shaped(self, raised, status, reason):
        self.assertEqual(raised.status_code, status)
        self.assertEqual(raised.body["reason"], reason)
        self.assertEqual(raised.body["type"], "http_error")
        self.assertEqual(raised.body["code"], status)
        self.assertIsNone(raised.body["param"])
        self.assertTrue(raised.body["message"])
        self.assertTrue(raised.request_id)
        self.assertEqual(raised.response.headers["content-type"].split(";")[0], "application/json")

    def test_wrong_token(self):
        raised = self.refused(openai.AuthenticationError, "alpha/ok", self.client(proxy, "sk-wrong"))
        self.shaped(raised, 401, "invalid_token")
        self.assertEqual(raised.body["message"], "无效的API token")
        self.assertEqual(raised.response.headers["www-authenticate"].split()[0], "Bearer")

    def test_no_token(self):
        raised = self.refused(openai.AuthenticationError, "alpha/ok", extra_headers={"Authorization": openai.omit})
        self.shaped(raised, 401, "missing_token")
        self.assertEqual(raised.body["message"], "未提供API token")

    def test_unknown_model(self):
        for model in ("nobody/ok", "no-such-model"):
            raised = self.refused(openai.NotFoundError, model)
            self.shaped(raised, 404, "model_not_found")
            self.assertEqual(raised.body["message"], "未找到模型: " + model)
        self.assertEqual(alpha.seen(), [])

    def test_unknown_path(self):
        with self.assertRaises(openai.NotFoundError) as raised:
            self.openai.get("/nowhere", cast_to=object)
        self.shaped(raised.exception, 404, "not_found")

    def test_body_faults(self):
        for body, reason in ((b'{"model":', "invalid_json"), (b"[]", "invalid_json"),
                             (b"{}", "missing_model"), (b'{"model":7}', "invalid_model"),
                             (b'{"model":""}', "invalid_model")):
            with self.subTest(body), self.assertRaises(openai.BadRequestError) as raised:
                self.openai.post("/chat/completions", content=body, cast_to=object,
                                 options={"headers": {"Content-Type": "application/json"}})
            self.shaped(raised.exception, 400, reason)
        self.assertEqual(alpha.seen(), [])

    def test_provider_unreachable(self):
        raised = self.refused(openai.InternalServerError, "down/ok")
        self.shaped(raised, 502, "upstream_unreachable")

    def test_provider_hangs_up(self):
        for model in ("break-before-head", "break-mid-stream"):
            raised = self.refused(openai.InternalServerError, "alpha/" + model)
            self.shaped(raised, 502, "upstream_broken")

    def test_provider_is_silent(self):
        for stream in (False, True):
            raised = self.refused(openai.InternalServerError, "alpha/silent", stream=stream)
            self.shaped(raised, 504, "upstream_timeout")

    def test_answer_too_large(self):
        raised = self.refused(openai.InternalServerError, "alpha/huge")
        self.shaped(raised, 502, "response_too_large")


class FromTheSdkItself(ErrorCase):
    def test_timeout_of_the_client(self):
        self.refused(openai.APITimeoutError, "alpha/silent", self.client(proxy, timeout=0.3))

    def test_nothing_listens(self):
        with ConfiguredProxy([alpha.entry]) as stopped:
            client = self.client(stopped)
        self.refused(openai.APIConnectionError, "alpha/ok", client)
