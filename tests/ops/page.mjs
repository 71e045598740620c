// The status page, as a browser shows it. `test_page.py` starts the proxy, keeps clients calling, and names both in the environment.
import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'

import { browser } from './browser.mjs'

const { PAGE, TOKEN, PICTURES, CONFIG } = process.env

/** A page that has drawn its figures, and everything that went wrong in it. */
async function open(options = {}, prepare = () => {}) {
  const context = await browser.newContext({ locale: 'en-US', viewport: { width: 1180, height: 900 }, ...options })
  const page = await context.newPage()
  const wrong = [], asked = []
  page.on('console', message => { if (message.type() === 'error') wrong.push(message.text()) })
  page.on('pageerror', error => wrong.push(String(error)))
  page.on('dialog', dialog => { wrong.push('dialog: ' + dialog.message()); dialog.dismiss() })
  page.on('request', request => asked.push(request.url()))
  await prepare(page)
  await page.goto(PAGE)
  return { page, wrong, asked, close: () => context.close() }
}

const row = (page, name) => page.locator('#providers tr').filter({ has: page.locator('td:first-child', { hasText: name }) }).first()
const token = (page, name) => page.locator('#tokens tr').filter({ hasText: name })
const tile = (page, name) => page.locator('.tile').filter({ hasText: name }).locator('b')
const until = async (what, look) => {
  for (const end = Date.now() + 40000; Date.now() < end;) {
    if (await look()) return
    await new Promise(resolve => setTimeout(resolve, 100))
  }
  assert.fail('never: ' + what)
}

test('it shows what is going on, and what is wrong', async () => {
  const { page, wrong, asked, close } = await open()
  await until('requests a minute', async () => parseInt(await tile(page, 'Requests / min').textContent()) > 0)
  await until('a latency', async () => /ms|s/.test(await tile(page, 'Latency').textContent()))
  await until('tokens a minute', async () => parseInt(await tile(page, 'Tokens / min').textContent()) > 0)
  await until('a share of failures', async () => parseFloat(await tile(page, '5xx').textContent()) > 0)
  assert.match(await row(page, 'alpha').textContent(), /● healthy/)
  assert.match(await row(page, 'down').textContent(), /▲ down/)
  assert.equal(await page.locator('#headline').textContent(), '▲ 1 of 3 providers down: down')
  assert.equal(await page.title(), '1 of 3 providers down – ai-proxy')
  await until('a cooldown', async () => /in cooldown \d+ s/.test(await page.locator('#providers').textContent()))
  assert.match(await page.locator('#providers').textContent(), /refused/i)
  assert.match(await page.locator('#usage').textContent(), /alpha\/ok/)
  assert.match(await page.locator('#rejected').textContent(), /upstream_unreachable/)
  assert.match(await page.locator('#config').textContent(), /fast -> alpha\/ok/)
  await until('charts', async () => await page.locator('.tile path.l').count() === 5)
  await page.locator('#filter').fill('FAST')
  assert.deepEqual(await page.locator('#models li').allTextContents(), ['fast'])
  await page.locator('#filter').fill('')
  assert.match(await page.locator('#targets').textContent(), /fast● alpha\/ok▲ down\/x/)
  assert.match(await token(page, 'e2e').textContent(), /\d \/ 100k requests a minute[\d.]+k? \/ 1G tokens today, resets in \d+ /)
  assert.match(await token(page, 'batch').textContent(), /no limits/)
  await page.locator('#model').pressSequentially('ALPHA/')
  const completed = await page.locator('#ids option').evaluateAll(options => options.map(option => option.value))
  assert.ok(completed.length > 1 && completed.every(id => id.startsWith('alpha/')), String(completed))
  await page.screenshot({ path: join(PICTURES, 'page-light-en.png'), fullPage: true })
  const text = await page.evaluate(() => document.documentElement.outerHTML)
  assert.ok(!text.includes(TOKEN) && !text.includes('sk-provider-key'), 'no secret')
  assert.deepEqual(wrong, [])
  assert.deepEqual(asked.filter(url => !url.startsWith(PAGE + '/') && !url.startsWith('data:')), [], 'nobody else is asked')
  await close()
})

test('a page that is opened later shows what was before, and the errors with their ids', async () => {
  const { page, wrong, close } = await open()
  await until('points', async () => await page.locator('.tile path.l').count() === 5)
  const asked = page.waitForResponse(PAGE + '/v1/status')
  await page.reload()
  const status = await (await asked).json()
  await page.locator('.tile path.l').first().waitFor({ state: 'attached' })
  assert.ok(status.history.requests.some(count => count > 0), 'the hour is the proxy’s')
  assert.notEqual(await row(page, 'alpha').locator('td').nth(4).textContent(), '0')
  const error = status.last_errors.find(error => error.reason === 'upstream_unreachable')
  const shown = page.locator('#errors tr').filter({ hasText: error.request_id })
  assert.match(await shown.textContent(), /^\d\d:\d\d:\d\d502upstream_unreachabledown/)
  assert.match(await page.locator('#errors').textContent(), /404model_not_found/)
  assert.deepEqual(wrong, [])
  await close()
})

test('the configuration is read again at a click, and its problems are listed', async () => {
  const good = readFileSync(CONFIG)
  const { page, wrong, close } = await open()
  try {
    await page.locator('#reload').click()
    await until('its success', async () => /card good/.test(await page.locator('#reloaded').getAttribute('class')))
    writeFileSync(CONFIG, '{"providers": ["<b>x"], "wrokers": 1}')
    await page.locator('#reload').click()
    await until('the problems', async () => /wrokers/.test(await page.locator('#reloaded').textContent()))
    assert.match(await page.locator('#reloaded').getAttribute('class'), /bad/)
    assert.equal(await page.locator('#reloaded b').count(), 0)
  } finally {
    writeFileSync(CONFIG, good)
  }
  await until('the click to count', () => page.locator('#reload').isEnabled())
  // What the refusal leaves in the console.
  assert.deepEqual(wrong.filter(line => !/422/.test(line)), [])
  await close()
})

test('names that look like markup are text', async () => {
  const { page, wrong, close } = await open()
  await row(page, '<b>bold').waitFor()
  await until('the model', async () => (await page.locator('#models').textContent()).includes('<img src=x onerror=alert(1)>'))
  await until('its use', async () => (await page.locator('#usage').textContent()).includes('<b>bold/<img src=x'))
  assert.match(await page.locator('#tokens').textContent(), /batch <i>jobs/)
  assert.match(await page.locator('#targets').textContent(), /<i>italic● <b>bold\/<img src=x/)
  await until('the error', async () => (await page.locator('#errors').textContent()).includes('no/<img src=x onerror=alert(3)>'))
  assert.equal(await page.locator('img, i, main b:not(.tile b), main script').count(), 0)
  assert.deepEqual(wrong, [])
  await close()
})

test('a model can be tried, streamed, and a refusal is told', async () => {
  const { page, wrong, close } = await open()
  await page.locator('#models button', { hasText: 'fast' }).click()
  await page.locator('#token').fill(TOKEN)
  await page.locator('#message').fill('hello there')
  await page.locator('#send').click()
  await until('the answer', async () => (await page.locator('#out').textContent()) === 'alpha: hello there')
  await until('its usage', async () => /first byte .* 5 \+ 7 token/.test(await page.locator('#said').textContent()))
  await page.locator('#model').fill('no/such')
  await page.locator('#send').click()
  await until('the refusal', async () => /404 model_not_found: model not found: no\/such/.test(await page.locator('#out').textContent()))
  await page.locator('#model').fill('alpha/break-mid-stream')
  await page.locator('#send').click()
  await until('the break', async () => /upstream_broken|the stream broke off/.test(await page.locator('#out').textContent()))
  await page.locator('#model').fill('alpha/silent')
  await page.locator('#send').click()
  await page.locator('#stop').click()
  await until('the stop', async () => /stopped/.test(await page.locator('#out').textContent()))
  assert.ok(await page.locator('#send').isEnabled())
  // What the two failures above leave in the console.
  assert.deepEqual(wrong.filter(line => !/404|ERR_INCOMPLETE_CHUNKED/.test(line)), [])
  await close()
})

test('who is not on the machine is asked for a token, which stays in the tab', async () => {
  const forwarded = page => page.setExtraHTTPHeaders({ 'x-forwarded-for': '192.0.2.1' })
  const { page, close } = await open({}, forwarded)
  await page.locator('#ask').waitFor()
  assert.equal(await page.locator('#providers tr').count(), 0)
  await page.locator('#admin').fill('sk-not-a-token')
  await page.locator('#login button').click()
  await until('a refusal', async () => (await page.locator('#refused').textContent()) === 'not valid')
  await page.locator('#admin').fill(TOKEN)
  await page.locator('#login button').click()
  await row(page, 'alpha').waitFor()
  assert.ok(await page.locator('#ask').isHidden())
  await page.reload()
  await row(page, 'alpha').waitFor()
  assert.equal(await page.evaluate(() => document.cookie + localStorage.length), '0')
  await close()
})

test('in Chinese, in the dark', async () => {
  const { page, wrong, close } = await open({ locale: 'zh-CN', colorScheme: 'dark' })
  await until('figures', async () => parseInt(await tile(page, '请求 / 分钟').textContent()) > 0)
  assert.match(await row(page, 'alpha').textContent(), /● 健康/)
  assert.equal(await page.title(), '3 个提供商中 1 个不可用 – ai-proxy')
  assert.doesNotMatch(await page.locator('body').innerText(), /undefined|NaN/)
  assert.equal(await page.evaluate(() => document.documentElement.lang), 'zh')
  assert.equal(await page.evaluate(() => getComputedStyle(document.body).backgroundColor), 'rgb(16, 19, 24)')
  await page.screenshot({ path: join(PICTURES, 'page-dark-zh.png'), fullPage: true })
  await page.locator('#lang').selectOption('en')
  assert.match(await row(page, 'alpha').textContent(), /● healthy/)
  await page.reload()
  await until('the choice is kept', async () => (await page.evaluate(() => document.documentElement.lang)) === 'en')
  assert.deepEqual(wrong, [])
  await close()
})

for (const colorScheme of ['light', 'dark']) {
  for (const width of [360, 1280]) {
    test(`nothing sticks out and nothing is cut at ${width} px, ${colorScheme}`, async () => {
      const phone = { isMobile: true, hasTouch: true, deviceScaleFactor: 2 }
      const { page, wrong, close } = await open({ viewport: { width, height: 740 }, colorScheme, ...width < 720 ? phone : {} })
      await until('figures', async () => parseInt(await tile(page, 'Requests / min').textContent()) > 0)
      await page.locator('#errors tbody tr').first().waitFor()
      assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= window.innerWidth))
      const edges = await page.locator('.card:visible').evaluateAll(cards => cards.map(card => card.getBoundingClientRect().right))
      assert.ok(Math.max(...edges) <= width - 16 + 1, String(edges))
      // No cell reaches beyond its card, and no table has to be scrolled sideways.
      const cut = await page.locator('.wide, td').evaluateAll(all => all.filter(e => e.scrollWidth > e.clientWidth + 1).map(e => e.outerHTML.slice(0, 200)))
      assert.deepEqual(cut, [])
      // Providers are cards on a phone: each figure has its name above it.
      const names = await row(page, 'alpha').locator('td').evaluateAll(cells => cells.map(cell => getComputedStyle(cell, '::before').content))
      assert.equal(names.every(name => name !== 'none'), width < 720, String(names))
      await page.screenshot({ path: join(PICTURES, `page-${width}-${colorScheme}.png`), fullPage: true })
      assert.deepEqual(wrong, [])
      await close()
    })
  }
}

test('a proxy that is gone is told of, and one that is back drawn again', async () => {
  const { page, close } = await open()
  await row(page, 'alpha').waitFor()
  await page.route('**/metrics', route => route.abort())
  await until('the warning', () => page.locator('#late').isVisible())
  assert.match(await page.title(), /^No response from ai-proxy/)
  await page.unroute('**/metrics')
  await until('its end', () => page.locator('#late').isHidden())
  await close()
})
