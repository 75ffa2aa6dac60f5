// The server under test and the official clients pointed at it. PARLEY_ENV holds what `parley env --json` printed.
import './record.mjs'
import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import http from 'node:http'
import { createRequire } from 'node:module'
import { basename } from 'node:path'
import { after, test as nodeTest } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'
import { ours, takeProblems } from './record.mjs'

const require = createRequire(import.meta.url)
export const botpress = require('@botpress/client')
export const chat = require('@botpress/chat')

if (!process.env.PARLEY_ENV) throw new Error('run this suite with: go test ./conformance')
export const env = JSON.parse(process.env.PARLEY_ENV)
export const apiUrl = env.BP_API_URL
export const chatUrl = env.PARLEY_CHAT_API_URL

// Node's agent gives sockets that it uses again a timer of five seconds, and what axios left on them destroys them then: a
// listener that hears nothing for so long would be cut by its own process. How fast this machine is must not decide that.
http.globalAgent.options.timeout = 0

// A stream that a failed case left open must not keep the whole run waiting.
after(() => setTimeout(() => process.exit(), 200).unref())

const suite = basename(process.argv[1], '.test.mjs')

// test is a case of the suite: what fn asserts, and that every answer seen meanwhile was as published.
export function test(name, fn, options = {}) {
  nodeTest(`${suite}: ${name}`, { timeout: 180_000, ...options }, async (t) => {
    takeProblems()
    try {
      await fn(t)
    } catch (e) {
      for (const p of takeProblems()) t.diagnostic(p)
      throw e
    }
    assert.deepEqual(takeProblems(), [], 'answers are as published')
  })
}

// fresh makes a foreign id that no other case uses.
export const fresh = (what = 'id') => `${what}-${randomUUID().slice(0, 18)}`

// rejects asserts that work fails with the official error class of that name, and returns the error.
export async function rejects(work, name, message) {
  const classes = [botpress, chat].map((client) => client[`${name}Error`]).filter(Boolean)
  const errors = (e) => classes.some((c) => e instanceof c) && e.type === name
  let thrown
  await assert.rejects(
    async () => work,
    (e) => {
      thrown = e
      assert.ok(errors(e), `want ${name}, got ${e?.type ?? e?.constructor?.name}: ${e?.message}`)
      if (message) assert.match(e.message, message)
      return true
    },
  )
  return thrown
}

// patience bounds how long a failing case waits; a slow machine does not come near it.
const patience = 60_000

// within gives work a limit in time; an unanswered promise says what it waited for.
export async function within(work, what, ms = patience) {
  const stop = new AbortController()
  const late = pause(ms, undefined, { signal: stop.signal }).then(() => assert.fail(`no ${what} within ${ms} ms`))
  try {
    return await Promise.race([work, late])
  } finally {
    stop.abort()
    late.catch(() => {})
  }
}

// until asks again until the answer is truthy, for facts that have no signal.
export async function until(ask, what, ms = patience) {
  const end = Date.now() + ms
  for (;;) {
    const answer = await ask()
    if (answer) return answer
    if (Date.now() > end) assert.fail(`no ${what} within ${ms} ms`)
    await pause(20)
  }
}

// raw sends one request by hand, for what no official client sends.
export function raw(method, path, { headers = {}, body, token = env.BP_TOKEN, base = apiUrl } = {}) {
  const url = new URL(base)
  // The path goes out as it is written: a parser would tidy up the very things that some cases are about.
  const target = url.pathname.replace(/\/$/, '') + path || '/'
  const data = body === undefined || typeof body === 'string' || Buffer.isBuffer(body) ? body : JSON.stringify(body)
  const all = {
    ...(token ? { authorization: `Bearer ${token}` } : {}),
    ...(data === undefined ? {} : { 'content-type': 'application/json', 'content-length': Buffer.byteLength(data) }),
    ...headers,
  }
  for (const [name, value] of Object.entries(all)) if (value === null) delete all[name]
  return new Promise((resolve, reject) => {
    const request = ours(http.request({ host: url.hostname, port: url.port, path: target, method, headers: all }))
    request.on('error', reject)
    request.on('response', (answer) => {
      const chunks = []
      answer.on('data', (c) => chunks.push(c))
      answer.on('error', reject)
      answer.on('end', () => {
        const text = Buffer.concat(chunks).toString('utf8')
        const json = /^application\/json\b/.test(answer.headers['content-type'] ?? '') && text ? JSON.parse(text) : undefined
        resolve({ status: answer.statusCode, headers: answer.headers, text, body: json })
      })
    })
    request.end(data)
  })
}

// admin is the client of a person: a personal access token and a workspace.
export function admin(props = {}) {
  const headers = { 'x-multiple-integrations': 'true' }
  return new botpress.Client({ apiUrl, token: env.BP_TOKEN, workspaceId: env.BP_WORKSPACE_ID, headers, ...props })
}

// asBot is the client of a bot process, asIntegration that of an integration process.
export const asBot = (botId, props = {}) => new botpress.Client({ apiUrl, token: env.BP_TOKEN, botId, ...props })
export const asIntegration = (botId, integrationId, props = {}) => asBot(botId, { integrationId, ...props })

let version
// chatIntegration is the hub's chat integration in the version that the pinned chat client asks for.
export async function chatIntegration() {
  version ??= admin().getPublicIntegration({ name: 'chat', version: '0.7.6' })
  return (await version).integration
}

// makeBot creates a bot at url (nowhere by default) with the chat integration installed under alias.
export async function makeBot({ alias = 'chat', configuration = {}, ...rest } = {}) {
  const integration = await chatIntegration()
  const { bot } = await admin().createBot({ name: fresh('bot') })
  const install = { integrationId: integration.id, enabled: true, configuration }
  const updated = await admin().updateBot({ id: bot.id, ...rest, integrations: { [alias]: install } })
  const { webhookId } = updated.bot.integrations[alias]
  return {
    id: bot.id,
    integrationId: integration.id,
    webhookId,
    chatUrl: `${apiUrl}/${webhookId}`,
    client: asBot(bot.id),
    integration: asIntegration(bot.id, integration.id),
  }
}

const kinds = ['message_created', 'message_deleted', 'event_created', 'participant_added', 'participant_removed', 'unknown']

// listen opens the official listener and keeps every signal. wait finds one, already seen or still to come; signals that a
// wait returned are not returned again.
export async function listen(client, args) {
  const source = await client.listenConversation(args)
  const box = mailbox()
  for (const type of kinds) source.on(type, (data) => box.put({ type, data }))
  const ended = new Promise((resolve) => source.on('error', resolve))
  return { ...box, ended, status: () => source.status, close: () => source.disconnect() }
}

// mailbox keeps what arrives in order and lets a case wait for it.
export function mailbox() {
  const all = []
  const pending = []
  const waiting = new Set()
  const offer = () => {
    for (const w of waiting) {
      const i = pending.findIndex(w.match)
      if (i < 0) continue
      waiting.delete(w)
      w.resolve(pending.splice(i, 1)[0])
    }
  }
  return {
    all,
    put(item) {
      all.push(item)
      pending.push(item)
      offer()
    },
    wait(match, what = 'signal', ms) {
      const found = new Promise((resolve) => waiting.add({ match, resolve }))
      offer()
      return within(found, what, ms)
    },
  }
}

export const fromBot = (s) => s.type === 'message_created' && s.data.isBot
export const fromUser = (s) => s.type === 'message_created' && !s.data.isBot
export const ofType = (type) => (s) => s.type === type

// talk opens a conversation of a new chat user and listens to it.
export async function talk(url = chatUrl, props = {}) {
  const client = await chat.Client.connect({ apiUrl: url, ...props })
  const { conversation } = await client.createConversation({})
  const signals = await listen(client, { id: conversation.id })
  const say = (text, more = {}) =>
    client.createMessage({ conversationId: conversation.id, payload: { type: 'text', text }, ...more }).then((r) => r.message)
  return { client, id: conversation.id, signals, say, close: () => signals.close() }
}

// collect reads every page of a list operation of the official clients.
export async function collect(list, member, args = {}) {
  const items = []
  const sizes = []
  let { nextToken } = args
  do {
    const page = await list({ ...args, nextToken })
    items.push(...page[member])
    sizes.push(page[member].length)
    nextToken = page.meta.nextToken
    assert.ok(sizes.length < 100, 'the pages come to an end')
  } while (nextToken)
  return { items, sizes }
}
