// A reload and a stop, as an application in the middle of its work sees them.

import assert from 'node:assert/strict';
import { before, beforeEach, test } from 'node:test';

import { all, ask, client, OpenAI, Proxy, rejection, textOf, Upstream, waitFor } from './harness.mjs';

let alpha;
let beta;
let proxy;
let openai;

before(async () => {
  [alpha, beta] = await Promise.all([Upstream.named('alpha'), Upstream.named('beta')]);
});

beforeEach(async () => {
  proxy = await Proxy.configured([alpha.entry]);
  openai = client(proxy);
});

const create = (model, options = {}) => openai.chat.completions.create({ model, messages: ask(), ...options });

/** Begins a stream that goes on when `gate` is opened; the answer opens it and reads to the end. */
async function streamInFlight(gate) {
  const chunks = (await create(`alpha/gated-${gate}`, { stream: true }))[Symbol.asyncIterator]();
  await chunks.next();
  return async () => {
    await alpha.openGate(gate);
    const rest = await all({ [Symbol.asyncIterator]: () => chunks });
    assert.equal(textOf(rest), 'alpha: hello there');
    assert.equal(rest.at(-1).choices[0].finish_reason, 'stop');
  };
}

test('a reload brings a new provider, and a stream in flight goes on', async () => {
  assert.ok((await rejection(create('beta/ok'))) instanceof OpenAI.NotFoundError);
  const finish = await streamInFlight('reload');

  proxy.write([alpha.entry, beta.entry]);
  assert.equal((await proxy.reload()).providers_count, 2);

  assert.equal((await create('beta/ok')).choices[0].message.content, 'beta: hello there');
  await waitFor(async () => (await all(openai.models.list())).some((model) => model.id === 'beta/ok'),
    "the new provider's models to be listed");
  await finish();
});

test('a bad config changes nothing', async () => {
  proxy.write([]);
  assert.ok((await rejection(openai.post('/reload'))) instanceof OpenAI.UnprocessableEntityError);
  assert.ok((await create('alpha/ok')).choices.length);
});

test('SIGTERM lets a stream finish', async () => {
  const finish = await streamInFlight('drain');
  proxy.child.kill('SIGTERM');
  await waitFor(turnedAway, 'the signal to be heeded');
  assert.equal(proxy.child.exitCode, null, 'a stream is in flight');
  await finish();
  assert.equal(await proxy.exited, 0);
});

/** True when a new caller finds no listener, or is told to come again. */
async function turnedAway() {
  try {
    return (await fetch(`${proxy.root}/healthz`, { headers: { Connection: 'close' } })).status === 503;
  } catch {
    return true;
  }
}
