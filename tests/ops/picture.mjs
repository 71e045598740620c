// The status page as README shows it. `test_picture.py` starts the proxy, keeps clients calling, and names both in the environment.
import assert from 'node:assert/strict'
import { join } from 'node:path'
import { test } from 'node:test'

import { browser } from './browser.mjs'

const { PAGE, PICTURES } = process.env
// Of traffic before a picture. 100 draw a line in each chart, as in the pictures of docs/.
const SECONDS = Number(process.env.PICTURE_SECONDS ?? 5)

for (const colorScheme of ['light', 'dark']) {
  test(`the status page, ${colorScheme}`, async () => {
    const context = await browser.newContext({ locale: 'en-US', viewport: { width: 1180, height: 760 }, colorScheme })
    const page = await context.newPage()
    await page.goto(PAGE)
    // A line at zero has no height, and so is not visible.
    await page.locator('.tile path.l').first().waitFor({ state: 'attached', timeout: 60000 })
    await new Promise(resolve => setTimeout(resolve, SECONDS * 1000))
    assert.match(await page.locator('#providers').textContent(), /zhipu.*deepseek.*openai.*ollama/s)
    await page.screenshot({ path: join(PICTURES, `status-${colorScheme}.png`) })
    await context.close()
  })
}
