// Starts what a test talks to, on free loopback ports, and stops it: the scripted upstream and the proxy.

import { spawn } from 'node:child_process';
import { mkdtempSync, openSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { after } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath, pathToFileURL } from 'node:url';

// By path, because the package lies in the build folder and not above this file.
const sdk = await import(pathToFileURL(join(process.env.E2E_NODE_MODULES, 'openai', 'index.mjs')));
export const OpenAI = sdk.default;

export const CLIENT_TOKEN = 'sk-client-token-0123456789';
export const DEADLINE_MS = 15_000; // nothing here takes as long unless it is broken
// What the children log goes to one file, which the run shows when something failed.
const LOG = openSync(process.env.E2E_LOG, 'a');
const UPSTREAM = fileURLToPath(new URL('../upstream.py', import.meta.url));

export const providerKey = (name) => `sk-provider-key-of-${name}`;

/** Waits for an event that nothing announces; the answer is what `condition` returned. */
export async function waitFor(condition, what, withinMs = DEADLINE_MS) {
  const until = performance.now() + withinMs;
  while (performance.now() < until) {
    const found = await condition();
    if (found) return found;
    await sleep(10);
  }
  throw new Error(`waited ${withinMs} ms in vain: ${what}`);
}

// Undone when the file that imports this one is through: the runner gives each file a process.
const undo = [];
after(async () => {
  for (const step of undo.reverse()) await step();
});

/** A child that tells on stdout where it listens. */
class Process {
  static async start(command, args, firstLine) {
    const started = new this();
    const child = (started.child = spawn(command, args, { stdio: ['pipe', 'pipe', LOG] }));
    undo.push(() => started.stop());
    started.exited = new Promise((resolve, reject) => {
      child.once('error', reject);
      child.once('close', (code, signal) => resolve(code ?? signal));
    });
    const listening = new Promise((resolve) => {
      createInterface(child.stdout).on('line', (line) => {
        const match = firstLine.exec(line);
        if (match) resolve(match[1]);
      });
    });
    const never = started.exited.then((code) => {
      throw new Error(`${command} ${args.join(' ')} ended with ${code}`);
    });
    never.catch(() => {}); // every process ends some day; it matters only while we wait for it to listen
    started.announced(await Promise.race([listening, never, tooLong()]));
    return started;
  }

  async stop() {
    this.child.kill('SIGKILL');
    await this.exited;
  }
}

async function tooLong() {
  await sleep(DEADLINE_MS, undefined, { ref: false });
  throw new Error('a process never said where it listens');
}

export class Upstream extends Process {
  static async named(name) {
    const upstream = await this.start('python3', ['-B', UPSTREAM, '--name', name], /^(\d+)$/);
    upstream.name = name;
    upstream.entry = `${name}|${upstream.root}/v1|${providerKey(name)}`;
    return upstream;
  }

  announced(port) {
    this.root = `http://127.0.0.1:${port}`;
  }

  forget() {
    return post(`${this.root}/_forget`);
  }

  openGate(name) {
    return post(`${this.root}/_open/${name}`);
  }

  /** The POST requests to this provider since `forget`, with bodies as text and headers as an object. */
  async seen() {
    const requests = await (await fetch(`${this.root}/_seen`)).json();
    return requests
      .filter((request) => request.method === 'POST')
      .map((request) => ({
        ...request,
        body: Buffer.from(request.body, 'base64').toString(),
        headers: Object.fromEntries(request.headers.map(([name, value]) => [name.toLowerCase(), value])),
      }));
  }
}

export class Proxy extends Process {
  static demo() {
    return this.start(process.env.AI_PROXY_BIN, ['demo', '--port', '0'], /listening on (http:\/\/\S+)/);
  }

  /** With a config file as an operator writes it; `settings` come on top of what every test needs. */
  static async configured(providers, settings = {}) {
    const folder = mkdtempSync(join(tmpdir(), 'ai-proxy-e2e-'));
    undo.push(() => rmSync(folder, { recursive: true }));
    const path = join(folder, 'config.json');
    const write = (written) => writeFileSync(path, JSON.stringify({
      host: '127.0.0.1', port: 0, log_file: null, log_level: 'DEBUG', tokens: [`e2e|${CLIENT_TOKEN}`],
      ...settings, providers: written,
    }), { mode: 0o600 }); // it holds keys; the proxy warns when others can read it
    write(providers);
    const proxy = await this.start(process.env.AI_PROXY_BIN, ['--config', path], /listening on (http:\/\/\S+)/);
    proxy.write = write;
    return proxy;
  }

  announced(root) {
    this.root = root.replace(/\/$/, '');
    this.url = `${this.root}/v1`;
  }

  async reload() {
    return (await post(`${this.url}/reload`)).json();
  }
}

async function post(url) {
  const answer = await fetch(url, { method: 'POST', body: '' });
  if (!answer.ok) throw new Error(`${url}: ${answer.status} ${await answer.text()}`);
  return answer;
}

/** The URL of a port that refuses connections: it was free a moment ago. */
export async function unreachableUrl() {
  const server = createServer();
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return `http://127.0.0.1:${port}/v1`;
}

/** Without retries unless asked for: a retry would hide what a test wants to see. */
export function client(proxy, options = {}) {
  return new OpenAI({
    baseURL: proxy.url, apiKey: CLIENT_TOKEN, maxRetries: 0, timeout: DEADLINE_MS, logLevel: 'off', ...options,
  });
}

/** A client that keeps the body of everything it really sent, retries included. */
export function countingClient(proxy, options = {}) {
  const sent = [];
  const counted = client(proxy, {
    fetch: (url, init) => {
      sent.push(init.body);
      return fetch(url, init);
    },
    ...options,
  });
  return { openai: counted, sent };
}

export const ask = (text = 'hello there') => [{ role: 'user', content: text }];

export async function all(stream) {
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  return chunks;
}

export const textOf = (chunks) => chunks.map((chunk) => chunk.choices[0]?.delta.content ?? '').join('');

/** What `promise` was rejected with. */
export async function rejection(promise) {
  try {
    await promise;
  } catch (error) {
    return error;
  }
  throw new Error('was not rejected');
}
