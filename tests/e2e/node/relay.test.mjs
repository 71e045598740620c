// Two providers behind one endpoint: what the client gets, and what each provider sees.

import assert from 'node:assert/strict';
import { before, beforeEach, test } from 'node:test';

import { all, ask, client, CLIENT_TOKEN, countingClient, providerKey, Proxy, textOf, Upstream } from './harness.mjs';

const VECTOR = [0.25, -0.5, 1];
let alpha;
let beta;
let proxy;
let openai;

before(async () => {
  [alpha, beta] = await Promise.all([Upstream.named('alpha'), Upstream.named('beta')]);
  proxy = await Proxy.configured([alpha.entry, beta.entry]);
  openai = client(proxy);
});

beforeEach(() => Promise.all([alpha.forget(), beta.forget()]));

test('every listed model can be retrieved and called', async () => {
  const ids = (await all(openai.models.list())).map((entry) => entry.id);
  assert.ok(ids.includes('alpha/meta/llama-3') && ids.includes('beta/mixed:7b'));
  for (const id of ids) {
    assert.equal((await openai.models.retrieve(id)).id, id);
    const answer = await openai.chat.completions.create({ model: id, messages: ask() });
    assert.equal(answer.choices[0].message.content, `${id.split('/')[0]}: hello there`);
  }
});

test('chat, whole and streamed, by both providers', async () => {
  for (const provider of ['alpha', 'beta']) {
    const question = { model: `${provider}/ok`, messages: ask('one two three') };
    const whole = await openai.chat.completions.create(question);
    assert.equal(whole.choices[0].message.content, `${provider}: one two three`);
    const chunks = await all(await openai.chat.completions.create({
      ...question, stream: true, stream_options: { include_usage: true },
    }));
    assert.deepEqual(
      chunks.slice(1, -2).map((chunk) => chunk.choices[0].delta.content),
      [`${provider}:`, ' one', ' two', ' three'],
    );
    assert.equal(chunks.at(-2).choices[0].finish_reason, 'stop');
    assert.equal(chunks.at(-1).usage.total_tokens, 12);
  }
});

test('tool calls, whole and streamed', async () => {
  const question = { model: 'alpha/tool-calls', messages: ask() };
  const whole = await openai.chat.completions.create(question);
  assert.deepEqual(JSON.parse(whole.choices[0].message.tool_calls[0].function.arguments), { city: '上海' });
  const chunks = await all(await openai.chat.completions.create({ ...question, stream: true }));
  const pieces = chunks.flatMap((chunk) => chunk.choices[0].delta.tool_calls ?? []);
  assert.deepEqual(JSON.parse(pieces.map((call) => call.function.arguments).join('')), { city: '上海' });
});

test('embeddings', async () => {
  for (const encoding of [{}, { encoding_format: 'float' }]) {
    const answer = await openai.embeddings.create({ model: 'beta/embeddings', input: ['one', 'two'], ...encoding });
    assert.deepEqual(answer.data.map((entry) => [...entry.embedding]), [VECTOR, VECTOR]);
  }
});

test('responses, whole and streamed', async () => {
  const question = { model: 'alpha/ok', input: 'hello there' };
  assert.equal((await openai.responses.create(question)).output_text, 'alpha: hello there');
  // These streams name their events and end without `[DONE]`: in a chunked answer that is a clean end.
  const events = await all(await openai.responses.create({ ...question, stream: true }));
  const deltas = events.filter((event) => event.type === 'response.output_text.delta').map((event) => event.delta);
  assert.equal(deltas.join(''), 'alpha: hello there');
  assert.equal(events.at(-1).type, 'response.completed');
});

test('speech is relayed byte for byte', async () => {
  const answer = await openai.audio.speech.create({ model: 'alpha/ok', voice: 'alloy', input: 'hello' });
  const expected = Buffer.from(Array.from({ length: 256 * 64 }, (_, at) => at % 256));
  assert.ok(Buffer.from(await answer.arrayBuffer()).equals(expected));
});

test('only the model changes in the body', async () => {
  const { openai: counted, sent } = countingClient(proxy);
  await counted.chat.completions.create({
    metadata: { model: 'alpha/ok' },
    messages: [{ role: 'system', content: '"model": "alpha/ok"' }, ...ask('写一首诗 \u{1f600} \u2028 \\u0041')],
    tiny: 1e-300, nothing: null, model: 'alpha/meta/llama-3',
  });
  const [got] = await alpha.seen();
  assert.equal(got.body, sent[0].replace('"alpha/meta/llama-3"', '"meta/llama-3"'));
  assert.equal((await beta.seen()).length, 0);
});

test('the key is swapped and the token stays behind', async () => {
  for (const upstream of [alpha, beta]) {
    await all(await openai.chat.completions.create(
      { model: `${upstream.name}/ok`, messages: ask(), stream: true },
      { headers: { 'X-Api-Key': CLIENT_TOKEN, 'Api-Key': CLIENT_TOKEN, Cookie: 'of=the-client' } },
    ));
    const [{ headers }] = await upstream.seen();
    assert.equal(headers.authorization, `Bearer ${providerKey(upstream.name)}`);
    assert.ok(!JSON.stringify(headers).includes(CLIENT_TOKEN));
    assert.equal(headers['accept-encoding'], 'identity');
    for (const leftOut of ['x-api-key', 'api-key', 'cookie']) assert.ok(!(leftOut in headers), leftOut);
  }
});

test('added headers', async () => {
  const question = { model: 'beta/ok', messages: ask() };
  const { data, response, request_id: id } = await openai.chat.completions.create(question).withResponse();
  assert.equal(response.headers.get('x-ai-proxy-provider'), 'beta');
  assert.equal(response.headers.get('set-cookie'), null);
  assert.equal(id, 'beta-1', "the provider's own id is kept");
  assert.equal(data._request_id, 'beta-1');

  const own = await openai.chat.completions.create(question, { headers: { 'X-Request-Id': 'mine-42' } }).withResponse();
  assert.equal(own.request_id, 'mine-42');

  const streamed = await openai.chat.completions.create({ ...question, stream: true }).withResponse();
  assert.equal(streamed.response.headers.get('x-ai-proxy-provider'), 'beta');
  assert.equal(textOf(await all(streamed.data)), 'beta: hello there');
});
