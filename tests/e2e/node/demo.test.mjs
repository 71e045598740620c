// `ai-proxy demo`: what somebody sees who has just built it.

import assert from 'node:assert/strict';
import { before, test } from 'node:test';

import { all, ask, client, OpenAI, Proxy, rejection, textOf } from './harness.mjs';

const model = 'demo/echo';
let demo;
let openai;

before(async () => {
  demo = await Proxy.demo();
  openai = client(demo, { apiKey: 'sk-demo' });
});

test('chat, whole', async () => {
  const answer = await openai.chat.completions.create({ model, messages: ask('good morning') });
  assert.equal(answer.object, 'chat.completion');
  assert.match(answer.choices[0].message.content, /good morning/);
  assert.equal(answer.choices[0].finish_reason, 'stop');
});

test('chat, streamed', async () => {
  const messages = ask('good morning');
  const chunks = await all(await openai.chat.completions.create({ model, messages, stream: true }));
  assert.ok(chunks.filter((chunk) => chunk.choices[0]?.delta.content).length > 1);
  assert.match(textOf(chunks), /good morning/);
  const finishes = chunks.filter((chunk) => chunk.choices.length).map((chunk) => chunk.choices[0].finish_reason);
  assert.equal(finishes.pop(), 'stop');
  assert.ok(finishes.every((finish) => finish == null), 'only the last chunk finishes');
});

test('the stream helper', async () => {
  const stream = openai.chat.completions.stream({ model, messages: ask('good morning') });
  let text = '';
  stream.on('content', (delta) => (text += delta));
  assert.equal(await stream.finalContent(), text);
  assert.match(text, /good morning/);
});

test('models, listed and retrieved', async () => {
  const listed = await all(openai.models.list());
  assert.ok(listed.some((entry) => entry.id === model));
  // The SDK sends the slash as %2F.
  assert.equal((await openai.models.retrieve(model)).id, model);
  assert.ok((await rejection(openai.models.retrieve('demo/nothing'))) instanceof OpenAI.NotFoundError);
});

test('a wrong token', async () => {
  const stranger = client(demo, { apiKey: 'sk-wrong' });
  const error = await rejection(stranger.chat.completions.create({ model, messages: ask() }));
  assert.ok(error instanceof OpenAI.AuthenticationError);
  assert.equal(error.error.reason, 'invalid_token');
});

test('an unknown model', async () => {
  for (const unknown of ['nobody/echo', 'nothing']) {
    const error = await rejection(openai.chat.completions.create({ model: unknown, messages: ask() }));
    assert.ok(error instanceof OpenAI.NotFoundError);
    assert.equal(error.error.reason, 'model_not_found');
  }
});
