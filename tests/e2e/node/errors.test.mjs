// Every error reaches the caller as the class that the SDK documents, and what a retry can mend is retried.

import assert from 'node:assert/strict';
import { before, beforeEach, test } from 'node:test';

import { ask, client, countingClient, OpenAI, Proxy, rejection, unreachableUrl, Upstream } from './harness.mjs';

const MIB = 1 << 20;
const CLASSES = {
  400: OpenAI.BadRequestError,
  401: OpenAI.AuthenticationError,
  403: OpenAI.PermissionDeniedError,
  404: OpenAI.NotFoundError,
  409: OpenAI.ConflictError,
  422: OpenAI.UnprocessableEntityError,
  429: OpenAI.RateLimitError,
  500: OpenAI.InternalServerError,
  502: OpenAI.InternalServerError,
  503: OpenAI.InternalServerError,
};
let alpha;
let proxy;

before(async () => {
  alpha = await Upstream.named('alpha');
  proxy = await Proxy.configured([alpha.entry, `down|${await unreachableUrl()}|sk-of-no-use-to-anybody`], {
    non_stream_timeout: 1, stream_timeout: 1, max_response_size: MIB, max_request_size: 8 * MIB,
  });
});

beforeEach(() => alpha.forget());

const create = (model, options = {}, openai = client(proxy)) =>
  openai.chat.completions.create({ model, messages: ask(), ...options });

/** The error of that very class, and not of a class under it. */
async function refused(kind, promise) {
  const error = await rejection(promise);
  assert.equal(error.constructor, kind, `${error}`);
  return error;
}

async function shaped(status, reason, promise) {
  const error = await refused(CLASSES[status] ?? OpenAI.InternalServerError, promise);
  assert.equal(error.status, status);
  assert.equal(error.error.reason, reason);
  assert.equal(error.type, 'http_error');
  assert.equal(error.code, status);
  assert.ok(error.requestID);
  return error;
}

for (const [status, kind] of Object.entries(CLASSES)) {
  test(`${status} of a provider`, async () => {
    for (const stream of [false, true]) {
      await alpha.forget();
      const error = await refused(kind, create(`alpha/status-${status}`, { stream }));
      assert.equal(error.code, `scripted_${status}`);
      assert.equal(error.requestID, 'alpha-1');
      assert.equal((await alpha.seen()).length, 1, "a lone provider's answer is the answer");
    }
  });
}

test('a body that is not JSON is wrapped', async () => {
  const error = await refused(OpenAI.InternalServerError, create('alpha/text-502'));
  assert.equal(error.code, 502);
  assert.match(error.message, /scripted failure/);
});

test('what the proxy refuses is not retried', async () => {
  const refusals = [
    [401, 'invalid_token', (openai) => create('alpha/ok', {}, openai.withOptions({ apiKey: 'sk-wrong' }))],
    [404, 'model_not_found', (openai) => create('nobody/ok', {}, openai)],
    [404, 'not_found', (openai) => openai.get('/nowhere')],
    [400, 'invalid_json', (openai) => openai.post('/chat/completions', {
      body: '{"model":', headers: { 'Content-Type': 'application/json' } })],
    [400, 'missing_model', (openai) => openai.post('/chat/completions', { body: { messages: ask() } })],
  ];
  for (const [status, reason, call] of refusals) {
    const { openai, sent } = countingClient(proxy, { maxRetries: 2 });
    const error = await shaped(status, reason, call(openai));
    assert.equal(error.headers.get('x-should-retry'), 'false');
    assert.equal(sent.length, 1);
  }
  assert.equal((await alpha.seen()).length, 0);
});

test('an unreachable provider is retried', async () => {
  const { openai, sent } = countingClient(proxy, { maxRetries: 1 });
  const error = await shaped(502, 'upstream_unreachable', create('down/ok', {}, openai));
  assert.equal(error.headers.get('x-should-retry'), null);
  assert.equal(sent.length, 2);
});

test('a provider that fails once is retried', async () => {
  const { openai, sent } = countingClient(proxy, { maxRetries: 2 });
  assert.ok((await create('alpha/flaky-503-node', {}, openai)).choices.length);
  assert.deepEqual([sent.length, (await alpha.seen()).length], [2, 2]);
});

test('a provider that hangs up', async () => {
  await shaped(502, 'upstream_broken', create('alpha/break-before-head'));
  await shaped(502, 'upstream_broken', create('alpha/break-mid-stream'));
});

test('a silent provider', async () => {
  await shaped(504, 'upstream_timeout', create('alpha/silent'));
  await shaped(504, 'upstream_timeout', create('alpha/silent', { stream: true }));
});

test('an answer that is too large', async () => {
  await shaped(502, 'response_too_large', create('alpha/huge'));
});

// Both refusals come while the client still sends: it must get to read them all the same.
test('a request that is too large', async () => {
  for (let at = 0; at < 5; at++) {
    const error = await refused(OpenAI.APIError, create('alpha/ok', { messages: ask('x'.repeat(12 * MIB)) }));
    assert.deepEqual([error.status, error.error.reason], [413, 'body_too_large']);
  }
});

test('a wrong token with a large request', async () => {
  for (let at = 0; at < 5; at++) {
    const stranger = client(proxy, { apiKey: 'sk-wrong' });
    await refused(OpenAI.AuthenticationError, create('alpha/ok', { messages: ask('x'.repeat(4 * MIB)) }, stranger));
  }
});

test('a time limit of the client', async () => {
  await refused(OpenAI.APIConnectionTimeoutError, create('alpha/silent', {}, client(proxy, { timeout: 300 })));
});

test('nothing listens', async () => {
  await refused(OpenAI.APIConnectionError, create('alpha/ok', {}, client({ url: await unreachableUrl() })));
});
