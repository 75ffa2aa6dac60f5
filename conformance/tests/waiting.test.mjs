// Send and wait: one request that posts a message and is answered with what the bot says about it (?wait=SECONDS). Parley's own, beside
// the published APIs; what is checked of the answers stands in lib/spec.mjs. The bot is an SDK bot in a process of its own.
import assert from 'node:assert/strict'
import { after, before } from 'node:test'
import { startBot } from '../lib/bot.mjs'
import { env, fresh, fromBot, makeBot, raw, talk, test } from '../lib/parley.mjs'

let program
let bot
before(async () => {
  program = await startBot()
  bot = await makeBot({ url: program.url })
})
after(() => program?.stop())

// ask posts a text of the user of a talk at the door of its bot, and waits.
const ask = (t, text, { wait = 60, headers = {}, base = bot.chatUrl } = {}) =>
  raw('POST', `/messages?wait=${wait}`, {
    base,
    token: null,
    headers: { 'x-user-key': t.client.user.key, ...headers },
    body: { conversationId: t.id, payload: { type: 'text', text } },
  })

const texts = (messages) => messages.map((m) => m.payload.text)

test('the Chat API: the replies are the messages that listener and list show', async () => {
  const t = await talk(bot.chatUrl)
  const { status, body } = await ask(t, 'twice')
  assert.deepEqual([status, texts(body.replies), body.finished], [201, ['one', 'two'], true])
  const heard = [await t.signals.wait(fromBot), await t.signals.wait(fromBot)].map(({ data: { isBot, ...message } }) => message)
  assert.deepEqual(body.replies, heard)
  const { messages } = await t.client.listMessages({ conversationId: t.id })
  assert.deepEqual(messages, [...body.replies, body.message].sort((a, b) => b.createdAt.localeCompare(a.createdAt)))
  await t.close()
})

test('the Runtime API: as the integration, to create, to get or create, and to do all at once', async () => {
  const headers = { 'x-bot-id': bot.id, 'x-integration-id': bot.integrationId }
  const post = async (path, body) => (await raw('POST', `/v1/chat/${path}?wait=60`, { headers, body })).body
  const { conversation } = await bot.integration.createConversation({ channel: 'channel', tags: {} })
  const { user } = await bot.integration.createUser({ tags: {} })
  const message = (text) => ({ type: 'text', payload: { text }, tags: { fid: fresh('message') } })
  const to = { conversationId: conversation.id, userId: user.id }
  const first = await post('messages', { ...to, ...message('one') })
  assert.deepEqual([texts(first.replies), first.finished], [['You said: one'], true])
  assert.deepEqual((await bot.integration.getMessage({ id: first.replies[0].id })).message, first.replies[0])
  const two = { ...to, ...message('two') }
  const second = await post('messages/get-or-create', two)
  assert.deepEqual([texts(second.replies), second.finished], [['You said: two'], true])
  assert.deepEqual(await post('messages/get-or-create', two), second)
  const third = await post('initialize-incoming-message', { ...to, message: { ...message('three'), discriminateByTags: ['fid'] } })
  assert.deepEqual([texts(third.replies), third.finished], [['You said: three'], true])
})

test('questions that are asked at once get each its own answer', async () => {
  const t = await talk(bot.chatUrl)
  const questions = Array.from({ length: 20 }, (_, n) => `question ${n}`)
  const answers = await Promise.all(questions.map((text) => ask(t, text)))
  for (const { body } of answers) assert.deepEqual(texts(body.replies), [`You said: ${body.message.payload.text}`])
  await t.close()
})

test('an Idempotency-Key keeps the plain answer, and a repetition waits for the same message', async () => {
  const t = await talk(bot.chatUrl)
  const headers = { 'idempotency-key': fresh('key') }
  const first = await ask(t, 'count', { headers })
  const again = await ask(t, 'count', { headers, wait: 60 })
  assert.deepEqual(again.body, first.body)
  assert.equal(again.headers['idempotency-replayed'], 'true')
  const plain = await raw('POST', '/messages', {
    base: bot.chatUrl,
    token: null,
    headers: { ...headers, 'x-user-key': t.client.user.key },
    body: { conversationId: t.id, payload: { type: 'text', text: 'count' } },
  })
  assert.deepEqual([plain.status, plain.body], [201, { message: first.body.message }])
  assert.deepEqual(texts(first.body.replies), ['count 1'])
  await t.close()
})

test('a bot that refuses is done with it; one that is down is not', async () => {
  const t = await talk(bot.chatUrl)
  const refused = await ask(t, 'refuse')
  assert.deepEqual([refused.body.replies, refused.body.finished], [[], true])
  await t.close()
  const down = await makeBot({ url: 'http://127.0.0.1:1' })
  const u = await talk(down.chatUrl)
  const late = await ask(u, 'hello', { wait: 0.3, base: down.chatUrl })
  assert.deepEqual([late.status, late.body.replies, late.body.finished], [201, [], false])
  const nowhere = await makeBot()
  const v = await talk(nowhere.chatUrl)
  assert.equal((await ask(v, 'hello', { wait: 0.3, base: nowhere.chatUrl })).body.finished, false)
  await u.close()
  await v.close()
})

test('what the bot itself posts is not waited for', async () => {
  const t = await talk(bot.chatUrl)
  const { body } = await raw('POST', '/v1/chat/messages?wait=60', {
    headers: { 'x-bot-id': bot.id },
    body: { conversationId: t.id, userId: bot.id, type: 'text', payload: { text: 'hello' }, tags: {} },
  })
  assert.deepEqual([body.replies, body.finished], [[], false])
  await t.close()
})

test('waits of no sense are refused by name, and nothing is posted', async () => {
  const t = await talk(bot.chatUrl)
  for (const wait of ['', '0', '-1', '61', 'ten', '1e3', '0x1']) {
    const { status, body } = await ask(t, 'hello', { wait })
    assert.deepEqual([status, body.type, body.message], [400, 'InvalidPayload', 'wait must be a number of seconds above 0 and at most 60, such as 10 or 2.5'])
  }
  const later = await raw('POST', '/v1/chat/messages?wait=1', {
    headers: { 'x-bot-id': bot.id, 'x-integration-id': bot.integrationId },
    body: { conversationId: t.id, userId: t.client.user.id, type: 'text', payload: { text: 'x' }, tags: {}, schedule: { delay: 1000 } },
  })
  assert.deepEqual([later.status, later.body.type], [400, 'InvalidPayload'])
  assert.match(later.body.message, /^wait does not go with schedule/)
  assert.deepEqual((await t.client.listMessages({ conversationId: t.id })).messages, [])
  await t.close()
})

test('the document says what may be waited for', async () => {
  const { body } = await raw('GET', '/openapi.json', { token: null })
  const waits = Object.values(body.paths)
    .flatMap(Object.values)
    .filter((o) => o.parameters?.some((p) => p.name === 'wait' && p.in === 'query'))
  const names = waits.map((o) => o.operationId.split('.').pop())
  for (const name of ['createMessage', 'getOrCreateMessage', 'initializeIncomingMessage']) assert.ok(names.includes(name), name)
  assert.ok(names.filter((name) => name === 'createMessage').length >= 2, `${names}`)
  for (const o of waits) {
    const [answer] = Object.values(o.responses)
    const { properties, required } = answer.content['application/json'].schema
    assert.ok(properties.replies && properties.finished && !required.includes('replies') && !required.includes('finished'), o.operationId)
  }
})

test('the built-in bot can be waited for', async () => {
  const t = await talk(env.PARLEY_CHAT_API_URL)
  const { body } = await ask(t, 'hello', { base: env.PARLEY_CHAT_API_URL })
  assert.equal(body.finished, true)
  assert.equal(body.replies.length, 1)
  await t.close()
})
