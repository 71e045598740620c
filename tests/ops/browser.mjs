// Chromium for a file of tests: started before its first, closed behind its last.
import { createRequire } from 'node:module'
import { after } from 'node:test'

const { chromium } = createRequire(process.env.NODE_MODULES + '/')('playwright-core')
const flags = ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
  '--disable-component-update', '--disable-sync']

export const browser = await chromium.launch({ executablePath: '/usr/bin/chromium', args: flags })
after(() => browser.close())
