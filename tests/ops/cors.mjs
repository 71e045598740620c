// What scripts of a page may do with a proxy of another origin. `test_cors.py` serves the pages (PAGE is in `cors_origins` of
// NAMED, OTHER is not; ANY allows every origin, CLOSED none) and names all in the environment.
import assert from 'node:assert/strict'
import { test } from 'node:test'

import { browser } from './browser.mjs'

const { PAGE, OTHER, NAMED, ANY, CLOSED, TOKEN } = process.env
// Everything that the official client sends from a page.
const HEADERS = { authorization: 'Bearer ' + TOKEN, 'x-stainless-lang': 'js', 'x-stainless-retry-count': '0', 'x-stainless-os': 'Unknown' }

/** Runs `script` on a page of `origin`; a call that the browser forbids gives its error as text. */
async function on(origin, script, ...given) {
  const context = await browser.newContext()
  const page = await context.newPage()
  await page.goto(origin)
  await page.addScriptTag({ content: `
    const HEADERS = ${JSON.stringify(HEADERS)}
    async function call(url, options = {}) {
      try {
        const { headers, ...more } = options
        const answer = await fetch(url, { ...more, headers: { ...HEADERS, ...headers } })
        const seen = Object.fromEntries(answer.headers)
        const body = options.method === 'HEAD' ? '' : await answer.text()
        return { status: answer.status, headers: seen, text: body, json: /^[{[]/.test(body) && JSON.parse(body) }
      } catch (error) { return String(error) }
    }
    const ask = (url, asked, headers) => call(url + '/v1/chat/completions', { method: 'POST',
      headers: { 'content-type': 'application/json', ...headers },
      body: JSON.stringify({ messages: [{ role: 'user', content: 'one two' }], ...asked }) })` })
  try {
    return await page.evaluate(script, given)
  } finally {
    await context.close()
  }
}

for (const [name, proxy] of [['its origin by name', NAMED], ['every origin', ANY]]) {
  test(`a page calls a proxy that allows ${name}`, async () => {
    const chat = await on(PAGE, ([proxy]) => ask(proxy, { model: 'alpha/ok' }), proxy)
    assert.equal(chat.json.choices[0].message.content, 'alpha: one two')
    // The page can read what it needs, the provider's own limits included.
    assert.match(chat.headers['x-request-id'], /^alpha-\d+$/)
    assert.equal(chat.headers['x-ai-proxy-provider'], 'alpha')
  })
}

test('a stream arrives piece by piece', async () => {
  const pieces = await on(PAGE, async ([proxy]) => {
    const answer = await fetch(proxy + '/v1/chat/completions', { method: 'POST',
      headers: { ...HEADERS, 'content-type': 'application/json' },
      body: JSON.stringify({ model: 'alpha/paced', stream: true, messages: [{ role: 'user', content: 'one two three' + ' four'.repeat(60) }] }) })
    const pieces = [answer.headers.get('x-request-id')], decoder = new TextDecoder()
    for await (const piece of answer.body) pieces.push(decoder.decode(piece))
    return pieces
  }, NAMED)
  assert.match(pieces.shift(), /^alpha-/)
  assert.ok(pieces.length > 2, `${pieces.length} pieces`)
  assert.match(pieces.join(''), /one.*two.*three.*data: \[DONE\]\n\n$/s)
})

test('a stream that breaks off is an error to the page', async () => {
  const broken = await on(PAGE, ([proxy]) => ask(proxy, { model: 'alpha/break-mid-stream', stream: true }), NAMED)
  assert.match(String(broken), /TypeError/)
})

test('a form with a file', async () => {
  const answer = await on(PAGE, ([proxy]) => {
    const form = new FormData()
    form.append('file', new File([new Uint8Array(100000)], 'a "b".wav'))
    form.append('model', 'beta/whisper')
    return call(proxy + '/v1/audio/transcriptions', { method: 'POST', body: form })
  }, NAMED)
  assert.match(answer.json.text, /^beta: .*100000 bytes$/)
})

test('sound', async () => {
  const [size, kind] = await on(PAGE, async ([proxy]) => {
    const answer = await fetch(proxy + '/v1/audio/speech', { method: 'POST',
      headers: { ...HEADERS, 'content-type': 'application/json' },
      body: JSON.stringify({ model: 'alpha/ok', voice: 'alloy', input: 'hi' }) })
    const blob = await answer.blob()
    return [blob.size, blob.type]
  }, NAMED)
  assert.deepEqual([size, kind], [256 * 64, 'audio/mpeg'])
})

test('a stored response, GET and DELETE', async () => {
  const stored = (method) => on(PAGE, ([proxy, method]) => call(proxy + '/v1/responses/resp_beta', { method }), NAMED, method)
  assert.equal((await stored('GET')).json.id, 'resp_beta')
  assert.equal((await stored('HEAD')).status, 200)
  assert.equal((await stored('DELETE')).json.deleted, true)
})

test('a refusal can be read, and when to come again', async () => {
  for (const [asked, headers, status, reason] of [
    [{ model: 'alpha/ok' }, { authorization: 'Bearer wrong' }, 401, 'invalid_token'],
    [{ model: 'no/such' }, {}, 404, 'model_not_found'],
    [{}, {}, 400, 'missing_model'],
  ]) {
    const refused = await on(PAGE, ([proxy, asked, headers]) => ask(proxy, asked, headers), NAMED, asked, headers)
    assert.deepEqual([refused.status, refused.json.error.reason], [status, reason])
    assert.ok(refused.headers['x-request-id'])
  }
  const slow = { authorization: `Bearer ${TOKEN}-slow` }
  const limited = await on(PAGE, async ([proxy, slow]) => {
    await ask(proxy, { model: 'alpha/ok' }, slow)
    return ask(proxy, { model: 'alpha/ok' }, slow)
  }, NAMED, slow)
  assert.equal(limited.status, 429)
  assert.ok(Number(limited.headers['retry-after']) > 0)
  assert.equal(limited.headers['x-ratelimit-remaining-requests'], '0')
  assert.equal((await on(PAGE, ([proxy]) => call(proxy + '/nowhere'), NAMED)).status, 404)
})

test('what is not allowed the browser forbids', async () => {
  const forbidden = /TypeError: Failed to fetch/
  assert.match(String(await on(OTHER, ([proxy]) => ask(proxy, { model: 'alpha/ok' }), NAMED)), forbidden)
  assert.match(String(await on(PAGE, ([proxy]) => ask(proxy, { model: 'alpha/ok' }), CLOSED)), forbidden)
  // Also a call that needs no preflight: it is made, and its answer kept from the page.
  const plain = ([proxy]) => fetch(proxy + '/v1/models').then((answer) => answer.text(), String)
  assert.match(await on(OTHER, plain, NAMED), forbidden)
  assert.match(await on(PAGE, plain, NAMED), /alpha\/ok/)
  assert.match(await on(OTHER, plain, ANY), /alpha\/ok/)
})
