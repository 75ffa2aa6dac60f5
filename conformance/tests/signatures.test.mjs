// Every call to a bot or an integration and every webhook, verified by its receiver with the official package of Standard
// Webhooks over the bytes as they came.
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { createRequire } from 'node:module'
import { after, before } from 'node:test'
import { admin, apiUrl, asIntegration, env, fresh, makeBot, raw, talk, test, until } from '../lib/parley.mjs'
import { sink } from '../lib/sink.mjs'

const { Webhook, WebhookVerificationError } = createRequire(import.meta.url)('standardwebhooks')

const a = admin()
const anything = { schema: { type: 'object', additionalProperties: true } }

let here // where everything arrives; the path says for whom it is
before(async () => void (here = await sink(() => ({ status: 200, body: { output: { pong: true } } }))))
after(() => here?.close())

const at = (who) => here.url.replace('/replies', `/${who}`)
const to = (who, operation) => (got) => got.path.replace(/\/$/, '') === `/${who}` && (!operation || got.headers['x-bp-operation'] === operation)
const arrives = (who, operation) => here.wait(to(who, operation), `${operation ?? 'request'} for ${who}`)

const newSecret = () => `whsec_${randomBytes(24).toString('base64')}`

// verifies asserts that got was signed with secret, and that nothing of it may differ. options are those of the package.
function verifies(got, secret, options) {
  const receiver = new Webhook(secret, options)
  assert.deepEqual(receiver.verify(got.text, got.headers), got.body)
  const fails = (text, headers, by = receiver) => assert.throws(() => by.verify(text, headers), WebhookVerificationError)
  const { 'webhook-id': id, 'webhook-timestamp': time, 'webhook-signature': signature } = got.headers
  fails(`${got.text} `, got.headers)
  fails(got.text.replace('{', '{"a":1,'), got.headers)
  fails(got.text, { ...got.headers, 'webhook-id': `${id}x` })
  fails(got.text, { ...got.headers, 'webhook-timestamp': String(Number(time) + 1) })
  fails(got.text, { ...got.headers, 'webhook-timestamp': String(Number(time) - 3600) })
  fails(got.text, { ...got.headers, 'webhook-signature': signature.replace(/v1,./g, 'v1,!') })
  fails(got.text, got.headers, new Webhook(newSecret()))
}

const signatures = (got) => got.headers['webhook-signature'].split(' ').length

// secrets asks for those of a bot or an integration, the newest first.
async function secrets(query) {
  const answer = await raw('GET', `/v1/parley/signing-secrets?${new URLSearchParams(query)}`)
  assert.equal(answer.status, 200, answer.text)
  return answer.body.signingSecrets.map((s) => s.secret)
}

async function rotate(body) {
  const answer = await raw('POST', '/v1/parley/signing-secrets/rotate', { body })
  assert.equal(answer.status, 200, answer.text)
  return answer.body.signingSecrets.map((s) => s.secret)
}

const signingSecret = async (botId) => (await a.getBot({ id: botId })).bot.signingSecret

test('a call to a bot, its events and its own actions', async () => {
  const who = fresh('bot')
  const bot = await makeBot({ url: at(who) })
  const secret = await signingSecret(bot.id)
  assert.match(secret, /^whsec_/)
  assert.deepEqual(await secrets({ botId: bot.id }), [secret])
  const { event } = await bot.client.createEvent({ type: 'tick', payload: { text: 'é 漢 𝄞 "quoted"' } })
  const got = await arrives(who, 'event_received')
  assert.deepEqual([got.headers['webhook-id'], got.body.event.payload.text], [event.id, 'é 漢 𝄞 "quoted"'])
  verifies(got, secret)
  await bot.client.callAction({ type: 'add', input: { a: 1 } })
  verifies(await arrives(who, 'action_triggered'), secret)
})

test('a call to an integration: its registration, messages, actions and its door', async () => {
  const [who, name] = [fresh('integration'), fresh('hooky')]
  const made = async (version) => {
    const channels = { channel: { messages: { text: anything } } }
    return (await a.createIntegration({ name, version, url: at(who), channels, actions: { ping: { input: anything, output: anything } } })).integration
  }
  const [integration, next] = [await made('1.0.0'), await made('2.0.0')]
  const [secret] = await secrets({ integrationId: integration.id })
  assert.deepEqual(await secrets({ integrationId: next.id }), [secret])
  const bot = await makeBot()
  assert.notEqual(await signingSecret(bot.id), secret)
  const { bot: updated } = await a.updateBot({ id: bot.id, integrations: { hooky: { integrationId: integration.id, enabled: true, configuration: {} } } })
  verifies(await arrives(who, 'register'), secret)

  const { conversation } = await asIntegration(bot.id, integration.id).createConversation({ channel: 'channel', tags: {} })
  await bot.client.createMessage({ conversationId: conversation.id, userId: bot.id, type: 'text', payload: { text: 'ü' }, tags: {} })
  const got = await arrives(who, 'message_created')
  assert.match(got.headers['webhook-id'], /^dlv_/)
  verifies(got, secret)

  const ids = new Set()
  for (const n of [1, 2]) {
    await bot.client.callAction({ type: 'hooky:ping', input: { n } })
    const action = await arrives(who, 'action_triggered')
    verifies(action, secret)
    await raw('POST', new URL(updated.integrations.hooky.webhookUrl).pathname, { body: { n } })
    const door = await arrives(who, 'webhook_received')
    verifies(door, secret)
    ids.add(action.headers['webhook-id']).add(door.headers['webhook-id'])
  }
  assert.equal(ids.size, 4)
})

test('the webhook of a chat', async () => {
  for (const webhookSecret of [newSecret(), 'hush', undefined]) {
    const who = fresh('chat')
    const bot = await makeBot({ configuration: { webhookUrl: at(who), ...(webhookSecret && { webhookSecret }) } })
    const t = await talk(bot.chatUrl)
    await t.say('héllo')
    const got = await here.wait((g) => to(who)(g) && g.body.type === 'message_created', 'signal')
    assert.equal(got.headers['x-secret-key'], webhookSecret)
    verifies(got, webhookSecret ?? (await signingSecret(bot.id)), webhookSecret === 'hush' ? { format: 'raw' } : undefined)
    await t.close()
  }
})

// messaging installs the Messaging API in a bot of its own, with a response endpoint.
async function messaging(who, configuration) {
  const { integration } = await a.getPublicIntegration({ name: 'messaging', version: 'latest' })
  const bot = await makeBot()
  const install = (more) =>
    a.updateBot({ id: bot.id, integrations: { messaging: { integrationId: integration.id, enabled: true, configuration: { responseEndpointUrl: at(who), ...more } } } })
  const { webhookUrl } = (await install(configuration)).bot.integrations.messaging
  await until(async () => (await a.getBot({ id: bot.id })).bot.integrations.messaging.status === 'registered', 'registration')
  const say = async () => {
    const body = { userId: fresh('u'), messageId: fresh('m'), conversationId: fresh('c'), type: 'text', text: 'hi', payload: {} }
    const answer = await fetch(webhookUrl, { method: 'POST', headers: { authorization: `bearer ${env.BP_TOKEN}` }, body: JSON.stringify(body) })
    const { conversation } = await answer.json()
    await bot.client.createMessage({ conversationId: conversation.id, userId: bot.id, type: 'text', payload: { text: 'héllo' }, tags: {} })
    return here.wait((g) => to(who)(g) && g.body.payload?.text === 'héllo', 'response')
  }
  return { ...bot, install, say }
}

test('a response of the Messaging API', async () => {
  for (const webhookSecret of [newSecret(), undefined]) {
    const bot = await messaging(fresh('backend'), webhookSecret && { webhookSecret })
    const got = await bot.say()
    assert.equal(got.headers['x-secret-key'], webhookSecret)
    verifies(got, webhookSecret ?? (await signingSecret(bot.id)))
  }
})

test('rotation: both secrets sign until the older one retires', async () => {
  const who = fresh('bot')
  const bot = await makeBot({ url: at(who) })
  const tick = async () => {
    await bot.client.createEvent({ type: 'tick', payload: {} })
    return arrives(who, 'event_received')
  }
  const old = await signingSecret(bot.id)
  verifies(await tick(), old)
  const [young, ...rest] = await rotate({ botId: bot.id })
  assert.deepEqual(rest, [old])
  assert.equal(await signingSecret(bot.id), young)
  let got = await tick()
  assert.equal(signatures(got), 2)
  verifies(got, young)
  verifies(got, old)

  assert.equal((await rotate({ botId: bot.id, keepFor: 1 })).length, 2)
  const third = await signingSecret(bot.id)
  await until(async () => (await secrets({ botId: bot.id })).length === 1, 'end of the older one')
  got = await tick()
  assert.equal(signatures(got), 1)
  verifies(got, third)
  assert.throws(() => new Webhook(young).verify(got.text, got.headers), WebhookVerificationError)

  assert.deepEqual((await rotate({ botId: bot.id, keepFor: 0 })).length, 1)
  got = await tick()
  verifies(got, await signingSecret(bot.id))
  assert.throws(() => new Webhook(third).verify(got.text, got.headers), WebhookVerificationError)
})

test('rotation: a webhook is set up with two secrets, and the legacy header carries the first', async () => {
  const [old, young] = [newSecret(), newSecret()]
  const bot = await messaging(fresh('backend'), { webhookSecret: old })
  verifies(await bot.say(), old)
  for (const [webhookSecret, all] of [[`${young} ${old}`, [young, old]], [young, [young]]]) {
    await bot.install({ webhookSecret })
    const got = await bot.say()
    assert.deepEqual([got.headers['x-secret-key'], signatures(got)], [young, all.length])
    for (const secret of all) verifies(got, secret)
  }
})

test('secrets are shown to those who own them', async () => {
  const bot = await makeBot()
  for (const [query, status, type] of [['', 400, 'InvalidPayload'], ['?botId=bot_01ZZZZZZZZZZZZZZZZZZZZZZZZ', 400, 'ReferenceNotFound'], [`?botId=${bot.id}&integrationId=${bot.integrationId}`, 400, 'InvalidPayload']]) {
    const answer = await raw('GET', `/v1/parley/signing-secrets${query}`)
    assert.deepEqual([answer.status, answer.body.type], [status, type])
  }
  assert.equal((await raw('GET', `/v1/parley/signing-secrets?botId=${bot.id}`, { token: null })).status, 401)
  assert.equal((await fetch(`${apiUrl}/v1/parley/signing-secrets?botId=${bot.id}`, { headers: { authorization: 'bearer bp_pat_nonsense' } })).status, 401)
})
