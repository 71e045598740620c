// The status page as README shows it. `test_picture.py` starts the proxy, keeps clients calling, and names both in the environment.
import assert from 'node:assert/strict'
import { join } from 'node:path'
import { test } from 'node:test'

import { browser } from './browser.mjs'

const { PAGE, PICTURES } = process.env
const SECONDS = 25 // of traffic before a picture: enough for a line in each chart

for (const colorScheme of ['light', 'dark']) {
  test(`the status page, ${colorScheme}`, async () => {
    const context = await browser.newContext({ locale: 'en-US', viewport: { width: 1180, height: 760 }, colorScheme })
    const page = await context.newPage()
    await page.goto(PAGE)
    await page.locator('.tile path.l').first().waitFor()
    await new Promise(resolve => setTimeout(resolve, SECONDS * 1000))
    assert.match(await page.locator('#providers').textContent(), /zhipu.*deepseek.*openai.*ollama/s)
    await page.screenshot({ path: join(PICTURES, `status-${colorScheme}.png`) })
    await context.close()
  })
}
