"""What the OpenAI API has beside chat, as its Python client calls it: files, sound, vectors, stored responses."""

import base64
import io
import struct

import openai

from harness import Case, ConfiguredProxy, Upstream, for_module
import shapes

SOUND = bytes(range(256)) * 400
PICTURE = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 8


def setUpModule():
    global alpha, beta, providers
    alpha, beta = for_module(Upstream("alpha")), for_module(Upstream("beta"))
    providers = [alpha.entry, beta.entry]


class SurfaceCase(Case):
    def setUp(self):
        alpha.forget()
        beta.forget()
        self.proxy = self.enterContext(ConfiguredProxy(providers))
        self.openai = self.client(self.proxy)


class Files(SurfaceCase):
    def test_a_file_is_transcribed(self):
        for call in (self.openai.audio.transcriptions, self.openai.audio.translations):
            answer = call.create(model="beta/whisper", file=("你好 \"x\".wav", io.BytesIO(SOUND)), prompt="model")
            self.assertIn("%d bytes" % len(SOUND), answer.text)
            got = beta.seen()[-1]
            asked = shapes.form(got["headers"]["content-type"], got["body"])
            self.assertEqual((asked["model"], asked["prompt"], asked["file"][1]), ("whisper", "model", SOUND))

    def test_a_transcription_is_streamed(self):
        with self.openai.audio.transcriptions.create(
                model="alpha/whisper", file=("a.wav", SOUND), stream=True) as stream:
            events = list(stream)
        self.assertEqual([e.type for e in events],
                         ["transcript.text.delta", "transcript.text.delta", "transcript.text.done"])
        self.assertEqual(events[-1].text, "alpha: a.wav, %d bytes" % len(SOUND))

    def test_a_picture_is_edited(self):
        answer = self.openai.images.edit(model="alpha/paint", image=("a.png", PICTURE), prompt="a hill")
        self.assertEqual(base64.b64decode(answer.data[0].b64_json).decode(),
                         "alpha: a.png, %d bytes, a hill" % len(PICTURE))
        answer = self.openai.images.create_variation(model="alpha/paint", image=("a.png", PICTURE))
        self.assertIn(b"%d bytes" % len(PICTURE), base64.b64decode(answer.data[0].b64_json))

    def test_a_model_that_is_not_there_is_told(self):
        with self.assertRaises(openai.NotFoundError):
            self.openai.audio.transcriptions.create(model="nobody/whisper", file=("a.wav", SOUND))

    def test_speech_is_played_as_it_comes(self):
        with self.openai.audio.speech.with_streaming_response.create(
                model="alpha/ok", voice="alloy", input="hello") as answer:
            self.assertEqual(answer.headers["content-length"], str(len(shapes.AUDIO)))
            self.assertEqual(b"".join(answer.iter_bytes(1000)), shapes.AUDIO)


class Vectors(SurfaceCase):
    def test_both_encodings(self):
        for encoding in ("float", "base64"):
            answer = self.openai.embeddings.create(model="beta/embed", input="one", encoding_format=encoding)
            vector = answer.data[0].embedding
            self.assertEqual(vector if encoding == "float" else self.decoded(vector), shapes.VECTOR)

    @staticmethod
    def decoded(text):
        raw = base64.b64decode(text)
        return list(struct.unpack("<%df" % (len(raw) // 4), raw))

    def test_moderations(self):
        self.assertFalse(self.openai.moderations.create(model="alpha/ok", input="hello").results[0].flagged)


class StoredResponses(SurfaceCase):
    def use(self, made):
        """All that can be done with a stored response; only its own provider is to hear of it."""
        self.assertEqual(self.openai.responses.retrieve(made).output_text, "beta: stored")
        self.assertEqual(list(self.openai.responses.input_items.list(made)), [])
        self.assertEqual(self.openai.responses.cancel(made).status, "cancelled")
        self.openai.responses.delete(made)

    def test_they_go_to_the_provider_that_made_them(self):
        self.use(self.openai.responses.create(model="beta/ok", input="hello").id)
        self.assertEqual([r for method in ("GET", "DELETE", "POST") for r in alpha.seen(method)
                          if "responses" in r["path"]], [])

    def test_also_after_a_stream(self):
        with self.openai.responses.create(model="beta/ok", input="hello", stream=True) as stream:
            made = [e for e in stream][0].response.id
        self.use(made)

    def test_and_after_a_restart(self):
        made = self.openai.responses.create(model="beta/ok", input="hello").id
        self.openai = self.client(self.enterContext(ConfiguredProxy(providers)))
        self.use(made)

    def test_one_that_nobody_has_is_not_found(self):
        with self.assertRaises(openai.NotFoundError):
            self.openai.responses.retrieve("resp_nobody")
