// An integration on the official SDK, as a process of its own, connects a channel to a bot on the SDK through Parley.
import assert from 'node:assert/strict'
import { after, before } from 'node:test'
import { startBot, startIntegration } from '../lib/bot.mjs'
import { admin, apiUrl, asBot, fresh, raw, rejects, test, until } from '../lib/parley.mjs'

const object = (properties, required = Object.keys(properties)) => ({ type: 'object', properties, required, additionalProperties: false })

let program
let robot
let definition
before(async () => {
  program = await startIntegration()
  robot = await startBot()
  const { integration } = await admin().createIntegration({
    name: fresh('hooky').replaceAll('-', ''),
    version: '0.1.0',
    url: program.url,
    configuration: { schema: object({ apiKey: { type: 'string' } }) },
    channels: {
      channel: {
        messages: { text: { schema: object({ text: { type: 'string' } }) } },
        message: { tags: { id: {} } },
        conversation: { tags: { id: {} } },
      },
    },
    user: { tags: { id: {} } },
    events: { received: { schema: object({ a: { type: 'number' } }) } },
    actions: {
      ping: {
        input: { schema: object({ n: { type: 'number' }, fail: { type: 'boolean' }, wrong: { type: 'boolean' } }, ['n']) },
        output: { schema: object({ pong: { type: 'number' }, alias: { type: 'string' } }) },
      },
      now: { cacheable: true, input: { schema: object({}) }, output: { schema: object({ at: { type: 'number' } }) } },
    },
  })
  definition = integration
})
after(async () => {
  await program?.stop()
  await robot?.stop()
})

// install makes a bot at url with the integration under alias.
async function install({ url, alias = definition.name, apiKey = 'k' } = {}) {
  const { bot } = await admin().createBot({ name: fresh('bot') })
  const put = { integrationId: definition.id, enabled: true, configuration: { apiKey } }
  await admin().updateBot({ id: bot.id, ...(url ? { url } : {}), integrations: { [alias]: put } })
  const shown = async () => (await admin().getBot({ id: bot.id })).bot.integrations[alias]
  const settled = () => until(async () => /^(un)?regist(ered|ration_failed)$|_failed$/.test((await shown()).status) && shown(), 'settled status')
  return { id: bot.id, alias, client: asBot(bot.id), webhookId: (await shown()).webhookId, shown, settled }
}

const knock = (webhookId, path = '', options = {}) => raw(options.method ?? 'POST', `/${webhookId}${path}`, { token: null, ...options })
const incoming = (text, ids = {}) => ({ body: { conversationId: 'c', userId: 'u', messageId: fresh('m'), text, ...ids } })
const mine = (bot, kind) => (m) => m.kind === kind && m.alias === bot.alias

test('installing registers, and what register says becomes the status', async () => {
  const bot = await install({ alias: fresh('one'), apiKey: 'a' })
  const told = await program.wait(mine(bot, 'register'))
  assert.deepEqual([told.webhookUrl, told.configuration], [`${apiUrl}/${bot.webhookId}`, { apiKey: 'a' }])
  const done = await bot.settled()
  assert.deepEqual([done.status, done.statusReason, done.identifier], ['registered', null, 'team-a'])
})

test('a refused registration shows the text of the RuntimeError, another configuration tries again', async () => {
  const bot = await install({ alias: fresh('two'), apiKey: 'refused' })
  const failed = await bot.settled()
  assert.deepEqual([failed.status, failed.statusReason], ['registration_failed', 'the key is refused'])
  await admin().updateBot({ id: bot.id, integrations: { [bot.alias]: { integrationId: definition.id, configuration: { apiKey: 'b' } } } })
  await until(async () => (await bot.shown()).status === 'registered', 'registered')
  await admin().updateBot({ id: bot.id, integrations: { [bot.alias]: { integrationId: definition.id, enabled: false } } })
  await program.wait(mine(bot, 'unregister'))
  await until(async () => (await bot.shown()).status === 'unregistered', 'unregistered')
})

test('a configuration that breaks its schema is refused by name', async () => {
  const { bot } = await admin().createBot({ name: fresh('bot') })
  const put = { integrationId: definition.id, enabled: true, configuration: { apiKey: 7 } }
  await rejects(admin().updateBot({ id: bot.id, integrations: { [fresh('x')]: put } }), 'InvalidDataFormat', /apiKey/)
})

test('a webhook becomes a message, the bot answers, the channel sends it out and acknowledges', async () => {
  const bot = await install({ url: robot.url, alias: fresh('talk') })
  await bot.settled()
  const answer = await knock(bot.webhookId, '/in?x=1', incoming('hello', { conversationId: 'c7' }))
  assert.equal(answer.status, 200)
  const { message, user, conversation } = JSON.parse(answer.text)
  assert.deepEqual([message.direction, message.payload, conversation.tags, user.tags, conversation.integration], ['incoming', { text: 'hello' }, { id: 'c7' }, { id: 'u' }, bot.alias])
  const handed = await program.wait(mine(bot, 'webhook'))
  assert.deepEqual([handed.req.method, handed.req.path, handed.req.query], ['POST', '/in', 'x=1'])
  assert.equal(handed.req.headers['content-type'], 'application/json')

  const out = await program.wait(mine(bot, 'out'))
  assert.deepEqual([out.text, out.conversation.id, out.conversation.tags, out.user.id], ['You said: hello', conversation.id, { id: 'c7' }, bot.id])
  const acked = await until(async () => {
    const { message } = await bot.client.getMessage({ id: out.messageId })
    return message.tags[`${bot.alias}:id`] && message
  }, 'acknowledged message')
  assert.equal(acked.tags[`${bot.alias}:id`], `ext-${out.messageId}`)

  const { events } = await bot.client.listEvents({ conversationId: conversation.id })
  assert.deepEqual(events.map((e) => e.type).sort(), ['message_created', `${bot.alias}:received`])
})

test('messages go out in the order of the conversation', async () => {
  const bot = await install({ url: robot.url, alias: fresh('order') })
  await bot.settled()
  const texts = Array.from({ length: 20 }, (_, n) => `n${n}`)
  for (const text of texts) assert.equal((await knock(bot.webhookId, '', incoming(text))).status, 200)
  const out = () => program.all.filter((m) => m.kind === 'out' && m.alias === bot.alias).map((m) => m.text)
  await until(() => out().length === texts.length, 'all answers')
  assert.deepEqual(out(), texts.map((t) => `You said: ${t}`))
})

test('the answer of the handler is relayed with status, headers and body', async () => {
  const bot = await install({ alias: fresh('relay') })
  for (const method of ['GET', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS']) {
    const answer = await knock(bot.webhookId, '/plain', { method })
    assert.deepEqual([answer.status, answer.headers['content-type'], answer.headers['x-foo'], answer.text], [202, 'text/plain', 'bar', `${method} ok!`])
  }
  // The SDK's own error comes back as it is, without a content type: not an answer of Parley to be checked as one.
  assert.equal((await fetch(`${apiUrl}/${bot.webhookId}/throw`, { method: 'POST' })).status, 400)
  assert.equal((await knock(bot.webhookId, '/none', { method: 'GET' })).status, 200)
})

test('/oauth goes to the installation that its state names', async () => {
  const bot = await install({ alias: fresh('oauth') })
  await raw('GET', `/oauth?state=${bot.webhookId}&code=abc`, { token: null })
  const { req } = await program.wait(mine(bot, 'webhook'))
  assert.deepEqual([req.path, req.query], ['/oauth', `state=${bot.webhookId}&code=abc`])
  const stray = await raw('GET', '/oauth?state=nobody', { token: null })
  assert.deepEqual([stray.status, stray.body.type], [404, 'ResourceNotFound'])
})

test('binary bodies and unknown doors are refused with a typed error', async () => {
  const bot = await install({ alias: fresh('binary') })
  const binary = await knock(bot.webhookId, '', { body: Buffer.from([0xff, 0xfe, 0]), headers: { 'content-type': 'application/octet-stream' } })
  assert.deepEqual([binary.status, binary.body.type], [415, 'UnsupportedMediaType'])
  const nowhere = await knock('00000000-0000-4000-8000-000000000000')
  assert.equal(nowhere.status, 404)
  assert.match(nowhere.body.message, /\[Webhook Handler\]/)
  const global = await raw('POST', '/integration/global/hooky', { token: null, body: {} })
  assert.equal(global.body.type, 'MethodNotFound')
})

test('actions: output, errors and schemas of both sides', async () => {
  const bot = await install({ alias: fresh('act') })
  const call = (input, action = 'ping') => bot.client.callAction({ type: `${bot.alias}:${action}`, input })
  assert.deepEqual(await call({ n: 7 }), { output: { pong: 7, alias: bot.alias }, meta: { cached: false } })
  await rejects(call({ n: 1, fail: true }), 'Runtime', /^nope$/)
  await rejects(call({ n: 'x' }), 'InvalidDataFormat', /input\.n/)
  await rejects(call({ n: 1, wrong: true }), 'InvalidDataFormat', /output\.pong/)
  await rejects(call({}, 'nope'), 'InvalidPayload', /nope/)
})

test('actions: a cacheable one is asked once', async () => {
  const bot = await install({ alias: fresh('cache') })
  const call = () => bot.client.callAction({ type: `${bot.alias}:now`, input: {} })
  const asked = []
  const kept = await until(async () => {
    const answer = await call()
    if (answer.meta.cached) return answer
    asked.push(answer.output.at)
  }, 'answer that was kept')
  // Of several servers each may ask before it hears of the answer that another one got.
  assert.ok(asked.length <= 3 && asked.includes(kept.output.at), `asked ${asked}, kept ${kept.output.at}`)
})

test('an installation sees nothing of another one of the same bot', async () => {
  const bot = await install({ alias: fresh('left') })
  const right = fresh('right')
  await admin().updateBot({ id: bot.id, integrations: { [right]: { integrationId: definition.id, enabled: true, configuration: { apiKey: 'r' } } } })
  const answer = await knock(bot.webhookId, '', incoming('for the left'))
  const { conversation } = JSON.parse(answer.text)
  const as = (alias) => asBot(bot.id, { integrationId: definition.id, integrationAlias: alias, headers: { 'x-integration-alias': alias } })
  assert.equal((await as(bot.alias).getConversation({ id: conversation.id })).conversation.id, conversation.id)
  await rejects(as(right).getConversation({ id: conversation.id }), 'ResourceNotFound')
  assert.deepEqual((await as(right).listConversations({})).conversations, [])
})

test('an integration that is down gets what waited, in order, when it is back', async () => {
  const other = await startIntegration()
  const { integration } = await admin().createIntegration({
    name: fresh('later').replaceAll('-', ''),
    version: '0.1.0',
    url: other.url,
    configuration: { schema: object({}) },
    channels: { channel: { messages: { text: { schema: object({ text: { type: 'string' } }) } }, message: { tags: { id: {} } }, conversation: { tags: { id: {} } } } },
  })
  const { bot } = await admin().createBot({ name: fresh('bot') })
  await admin().updateBot({ id: bot.id, integrations: { later: { integrationId: integration.id, enabled: true, configuration: {} } } })
  await until(async () => /^registr|^registered/.test((await admin().getBot({ id: bot.id })).bot.integrations.later.status), 'status')
  const as = asBot(bot.id, { integrationId: integration.id })
  const { conversation } = await as.createConversation({ channel: 'channel', tags: {} })
  await other.stop()
  for (let n = 0; n < 3; n++) {
    await asBot(bot.id).createMessage({ conversationId: conversation.id, userId: bot.id, type: 'text', tags: {}, payload: { text: `late ${n}` } })
  }
  const again = await startIntegration(other.port)
  const out = () => again.all.filter((m) => m.kind === 'out').map((m) => m.text)
  await until(() => out().length === 3, 'what waited')
  assert.deepEqual(out(), ['late 0', 'late 1', 'late 2'])
  await again.stop()
})
