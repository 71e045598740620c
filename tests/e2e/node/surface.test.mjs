// What the OpenAI API has beside chat, as its Node client calls it: files, sound, vectors, stored responses.

import assert from 'node:assert/strict';
import { before, test } from 'node:test';

import { all, client, OpenAI, Proxy, rejection, Upstream } from './harness.mjs';

const VECTOR = [0.25, -0.5, 1];
const BYTES = Buffer.from(Array.from({ length: 100_000 }, (_, at) => (at * 31) % 256));
const file = (name) => new File([BYTES], name);
let providers;
let openai;

before(async () => {
  const [alpha, beta] = await Promise.all([Upstream.named('alpha'), Upstream.named('beta')]);
  providers = [alpha.entry, beta.entry];
  openai = client(await Proxy.configured(providers));
});

test('a file is transcribed, whole and streamed', async () => {
  const question = { model: 'beta/whisper', file: file('a.wav') };
  assert.equal((await openai.audio.transcriptions.create(question)).text, 'beta: a.wav, 100000 bytes');
  assert.equal((await openai.audio.translations.create(question)).text, 'beta: a.wav, 100000 bytes');
  const events = await all(await openai.audio.transcriptions.create({ ...question, stream: true }));
  assert.equal(events.at(-1).text, 'beta: a.wav, 100000 bytes');
});

test('a picture is edited', async () => {
  const answer = await openai.images.edit({ model: 'alpha/paint', image: file('a.png'), prompt: 'a hill' });
  assert.equal(Buffer.from(answer.data[0].b64_json, 'base64').toString(), 'alpha: a.png, 100000 bytes, a hill');
});

test('speech is played as it comes', async () => {
  const answer = await openai.audio.speech.create({ model: 'alpha/ok', voice: 'alloy', input: 'hello' });
  let size = 0;
  for await (const piece of answer.body) size += piece.length;
  assert.equal(size, Number(answer.headers.get('content-length')));
  assert.equal(size, 256 * 64);
});

test('vectors in both encodings', async () => {
  const embed = (encoding_format) => openai.embeddings.create({ model: 'beta/embed', input: 'one', encoding_format });
  assert.deepEqual((await embed('float')).data[0].embedding, VECTOR);
  const raw = Buffer.from((await embed('base64')).data[0].embedding, 'base64');
  assert.deepEqual(VECTOR.map((_, at) => raw.readFloatLE(at * 4)), VECTOR);
});

test('stored responses go where they were made, also after a restart', async () => {
  const made = await openai.responses.create({ model: 'beta/ok', input: 'hello' });
  const events = await all(await openai.responses.create({ model: 'beta/ok', input: 'hello', stream: true }));
  assert.equal(events[0].response.id, made.id);
  for (const through of [openai, client(await Proxy.configured(providers))]) {
    assert.equal((await through.responses.retrieve(made.id)).output_text, 'beta: stored');
    assert.equal((await through.responses.cancel(made.id)).status, 'cancelled');
    assert.deepEqual(await all(through.responses.inputItems.list(made.id)), []);
    await through.responses.delete(made.id);
  }
  assert.ok((await rejection(openai.responses.retrieve('resp_nobody'))) instanceof OpenAI.NotFoundError);
});
