// Streams: each event at once and in order, and never a clean end for one that broke.

import assert from 'node:assert/strict';
import { before, beforeEach, test } from 'node:test';

import { all, ask, client, OpenAI, Proxy, rejection, textOf, Upstream, waitFor } from './harness.mjs';

const WORDS = 'one two three four five';
const BEFORE_TROUBLE = ['', 'alpha:', ' one']; // the first events of an answer to WORDS
const STREAMS = 32;
let alpha;
let patient;
let proxy;

before(async () => {
  alpha = await Upstream.named('alpha');
  proxy = await Proxy.configured([alpha.entry], { stream_timeout: 1, stream_heartbeat: 0.1 });
  patient = await Proxy.configured([alpha.entry]);
});

beforeEach(() => alpha.forget());

const stream = (model, { text = WORDS, through = proxy } = {}) =>
  client(through).chat.completions.create({ model, messages: ask(text), stream: true });

test('an event arrives before the next is sent', async () => {
  const chunks = (await stream('alpha/gated-first'))[Symbol.asyncIterator]();
  assert.equal((await chunks.next()).value.choices[0].delta.role, 'assistant');
  await alpha.openGate('first');
  const rest = [];
  for (let next = await chunks.next(); !next.done; next = await chunks.next()) rest.push(next.value);
  assert.equal(textOf(rest), `alpha: ${WORDS}`);
});

test('events keep their order', async () => {
  const chunks = await all(await stream('alpha/paced'));
  assert.deepEqual(
    chunks.slice(0, -1).map((chunk) => chunk.choices[0].delta.content),
    ['', 'alpha:', ...WORDS.split(' ').map((word) => ` ${word}`)],
  );
  assert.equal(chunks.at(-1).choices[0].finish_reason, 'stop');
});

test('the SDK passes over heartbeats', async () => {
  // The stream begins with a heartbeat: no byte of the provider is there yet.
  const late = await stream('alpha/late-heart');
  await alpha.openGate('heart');
  assert.equal(textOf(await all(late)), `alpha: ${WORDS}`);
});

test('a stream delimited by the close, with its [DONE]', async () => {
  assert.equal(textOf(await all(await stream('alpha/close-done'))), `alpha: ${WORDS}`);
});

/** The error that ended the stream; what came before it must have been delivered. */
async function broken(model) {
  const contents = [];
  const read = async () => {
    for await (const chunk of await stream(model)) contents.push(chunk.choices[0].delta.content);
  };
  const error = await rejection(read());
  assert.deepEqual(contents, BEFORE_TROUBLE);
  assert.ok(error instanceof OpenAI.APIError, `${error.constructor.name}: ${error}`);
  return error;
}

const TROUBLES = [
  ['break-mid-stream', 'upstream_broken', 502],
  ['reset-mid-stream', 'upstream_broken', 502],
  ['no-done', 'upstream_broken', 502],
  ['stalled', 'upstream_timeout', 504],
];
for (const [model, reason, code] of TROUBLES) {
  test(`a stream that ends in trouble throws: ${model}`, async () => {
    const error = await broken(`alpha/${model}`);
    assert.equal(error.error.reason, reason);
    assert.equal(error.code, code);
  });
}

test("the provider's own error event passes", async () => {
  assert.equal((await broken('alpha/error-event')).error.message, 'the provider gave up');
});

test('closing a stream frees the provider within a second', async () => {
  for await (const _ of await stream('alpha/stalled', { through: patient })) break;
  await waitFor(async () => (await alpha.seen())[0].gone, 'the connection to the provider to be closed', 1000);
});

test('many streams side by side', async () => {
  const questions = Array.from({ length: STREAMS }, (_, at) => `question number ${at} of many`);
  const answer = async (text) => textOf(await all(await stream('alpha/gated-crowd', { text, through: patient })));
  const answers = questions.map(answer);
  // All of them start before any may go on: that many are in flight at the same time for certain.
  await waitFor(async () => (await alpha.seen()).length === STREAMS, 'all streams to reach the provider');
  await alpha.openGate('crowd');
  assert.deepEqual(await Promise.all(answers), questions.map((text) => `alpha: ${text}`));
});
