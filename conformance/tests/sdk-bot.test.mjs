// A bot on the official SDK, as a process of its own, converses through Parley.
import assert from 'node:assert/strict'
import { after, before } from 'node:test'
import { startBot } from '../lib/bot.mjs'
import { admin, fromBot, fromUser, makeBot, ofType, rejects, talk, test, until } from '../lib/parley.mjs'

let program
let bot
before(async () => {
  program = await startBot()
  bot = await makeBot({ url: program.url })
})
after(() => program?.stop())

const converse = () => talk(bot.chatUrl)
const texts = (signals) => signals.all.filter(fromBot).map((s) => s.data.payload.text)
// handled waits for n reports of the bot process, which come by another way than its replies.
const handled = async (id, n) => {
  const mine = () => program.messages().filter((m) => m.conversationId === id)
  await until(() => mine().length >= n, `${n} handled messages`)
  return mine()
}
const settled = (client, id) =>
  until(async () => (await client.listEvents({ conversationId: id, status: 'pending' })).events.length === 0, 'settled events')

test('a message becomes an event, the bot replies, the listener hears it', async () => {
  const { client, id, signals, say, close } = await converse()
  const sent = await say('hello')
  const { data } = await signals.wait(fromBot)
  assert.equal(data.payload.text, 'You said: hello')
  assert.equal(data.userId, bot.id)
  const event = await until(async () => {
    const { events } = await bot.client.listEvents({ conversationId: id, type: 'message_created' })
    return events.find((e) => e.status !== 'pending')
  }, 'processed event')
  assert.deepEqual([event.status, event.failureReason, event.messageId, event.userId], ['processed', null, sent.id, client.user.id])
  const { message } = await bot.client.getMessage({ id: sent.id })
  assert.deepEqual(event.payload.message, message)
  assert.deepEqual(event.payload.user, (await bot.client.getUser({ id: client.user.id })).user)
  await close()
})

test('the bot sees its own view of conversation, user and message', async () => {
  const { client, signals, say, close } = await converse()
  await say('context')
  const seen = JSON.parse((await signals.wait(fromBot)).data.payload.text)
  assert.equal(seen.botId, bot.id)
  assert.equal(seen.channel, 'channel')
  assert.equal(seen.integration, 'chat')
  assert.equal(seen.conversationTags['chat:owner'], client.user.id)
  assert.equal(seen.direction, 'incoming')
  for (const tags of [seen.conversationTags, seen.userTags, seen.messageTags]) {
    for (const key of Object.keys(tags)) assert.match(key, /^chat:/)
  }
  await close()
})

test('a state counts the messages of a conversation', async () => {
  const { signals, say, close } = await converse()
  for (let n = 1; n <= 3; n++) {
    await say('count')
    assert.equal((await signals.wait(fromBot)).data.payload.text, `count ${n}`)
  }
  await close()
})

test('callAction chat:sendEvent reaches the listener as an event of the bot', async () => {
  const { id, signals, say, close } = await converse()
  await say('act')
  const { data } = await signals.wait(ofType('event_created'))
  assert.deepEqual([data.payload, data.isBot, data.id, data.userId, data.conversationId], [{ from: 'bot' }, true, null, bot.id, id])
  await close()
})

test('an event of the user reaches the handler of chat:custom, and its answer the user', async () => {
  const { client, id, signals, close } = await converse()
  const payload = { foo: 'bar', n: [1, { x: null }] }
  await client.createEvent({ conversationId: id, payload })
  const told = await program.wait((m) => m.kind === 'event' && m.conversationId === id)
  assert.deepEqual(told.payload, { userId: client.user.id, conversationId: id, payload })
  const { data } = await signals.wait((s) => s.type === 'event_created' && s.data.isBot)
  assert.deepEqual(data.payload, payload)
  await close()
})

test('bloc, carousel and metadata of the bot arrive in the form of the Chat API', async () => {
  const { client, id, signals, say, close } = await converse()
  await say('bloc')
  assert.deepEqual((await signals.wait(fromBot)).data.payload, {
    type: 'bloc',
    items: [
      { type: 'text', text: 'first' },
      { type: 'image', imageUrl: 'https://example.org/a.png' },
      { type: 'file', fileUrl: 'https://example.org/a.pdf', title: 'A' },
    ],
  })
  await say('carousel')
  const carousel = (await signals.wait(fromBot)).data.payload
  assert.deepEqual(carousel.items[0].actions, [{ action: 'say', label: 'Hi', value: 'hi' }])
  await say('metadata', { metadata: { ticket: 7 } })
  const last = (await signals.wait(fromBot)).data
  assert.deepEqual([last.metadata, last.payload], [{ ticket: 7 }, { type: 'text', text: 'with metadata' }])
  const { messages } = await client.listMessages({ conversationId: id })
  assert.deepEqual(messages[0].metadata, { ticket: 7 })
  await close()
})

test('payloads of the user arrive in the form of the Runtime API', async () => {
  const { client, id, close } = await converse()
  const items = [{ type: 'text', text: 'a' }, { type: 'image', imageUrl: 'https://example.org/i.png' }]
  await client.createMessage({ conversationId: id, payload: { type: 'bloc', items }, metadata: { m: 1 } })
  const { payload, type } = await program.wait((m) => m.kind === 'message' && m.conversationId === id)
  assert.equal(type, 'bloc')
  assert.deepEqual(payload, {
    items: [{ type: 'text', payload: { text: 'a' } }, { type: 'image', payload: { imageUrl: 'https://example.org/i.png' } }],
    metadata: { m: 1 },
  })
  await close()
})

test('a handler that throws fails its event with the reason, and the next message is handled', async () => {
  const { id, signals, say, close } = await converse()
  await say('refuse')
  await say('throw')
  await say('impostor')
  await say('and on')
  assert.equal((await signals.wait(fromBot)).data.payload.text, 'You said: and on')
  await settled(bot.client, id)
  const { events } = await bot.client.listEvents({ conversationId: id, status: 'failed' })
  const reasons = events.map((e) => e.failureReason).reverse()
  assert.equal(reasons.length, 3)
  assert.match(reasons[0], /the bot says no/)
  for (const r of reasons) assert.ok(r.length > 0)
  assert.match(reasons[2], /is not the bot|not the bot/)
  assert.deepEqual((await handled(id, 4)).map((m) => m.text), ['refuse', 'throw', 'impostor', 'and on'])
  await close()
})

test('two replies to one message come in order', async () => {
  const { signals, say, close } = await converse()
  await say('twice')
  await until(() => texts(signals).length === 2, 'two replies')
  assert.deepEqual(texts(signals), ['one', 'two'])
  await close()
})

test('fifty messages sent quickly are handled one at a time, in order, and answered in order', async () => {
  const { id, signals, say, close } = await converse()
  const sent = []
  for (let i = 0; i < 50; i++) sent.push(say(`m${i}`))
  const stored = (await Promise.all(sent)).sort((a, b) => (a.createdAt < b.createdAt ? -1 : 1)).map((m) => m.payload.text)
  await until(() => texts(signals).length === 50, 'fifty answers')
  const all = await handled(id, 50)
  assert.deepEqual(all.map((m) => m.text), stored)
  assert.deepEqual(texts(signals), stored.map((t) => `You said: ${t}`))
  assert.ok(all.every((m) => !m.overlap), 'no two handlers of one conversation at once')
  await close()
})

test('conversations do not wait for each other', async () => {
  const all = await Promise.all(Array.from({ length: 20 }, converse))
  await Promise.all(all.map(async (t) => { for (let i = 0; i < 5; i++) await t.say(`m${i}`) }))
  await Promise.all(all.map((t) => until(() => texts(t.signals).length === 5, 'five answers')))
  for (const t of all) assert.deepEqual(texts(t.signals), Array.from({ length: 5 }, (_, i) => `You said: m${i}`))
  await Promise.all(all.map((t) => t.close()))
})

test('a bot that is down loses nothing: messages are accepted, and answered in order when it is back', async () => {
  const down = await startBot()
  const other = await makeBot({ url: down.url })
  const t = await talk(other.chatUrl)
  await t.say('while up')
  await t.signals.wait(fromBot)
  await settled(other.client, t.id)
  await down.stop()
  for (let i = 0; i < 10; i++) await t.say(`m${i}`)
  const { events } = await other.client.listEvents({ conversationId: t.id, status: 'pending' })
  assert.equal(events.length, 10)
  const neighbour = await converse()
  await neighbour.say('not slowed')
  await neighbour.signals.wait(fromBot)
  const back = await startBot(down.port)
  await until(() => texts(t.signals).length >= 11, 'ten late answers').catch((e) => assert.fail(`${e.message}; ${texts(t.signals).length - 1} so far`))
  assert.deepEqual(texts(t.signals).slice(1), Array.from({ length: 10 }, (_, i) => `You said: m${i}`))
  await back.stop()
  await Promise.all([t.close(), neighbour.close()])
})

test('a bot that moves is found at its new url', async () => {
  const moved = await startBot()
  const other = await makeBot({ url: 'http://127.0.0.1:1' })
  const t = await talk(other.chatUrl)
  await t.say('to nobody')
  await admin().updateBot({ id: other.id, url: moved.url })
  assert.equal((await t.signals.wait(fromBot, 'answer')).data.payload.text, 'You said: to nobody')
  await moved.stop()
  await t.close()
})

test('long texts outside ASCII reach the bot unharmed', async () => {
  const { id, say, signals, close } = await converse()
  const text = '你好🙂é'.repeat(4000)
  await say(text)
  await signals.wait(fromUser)
  const { data } = await signals.wait(fromBot)
  assert.equal(data.payload.text, `You said: ${text}`)
  assert.equal((await handled(id, 1))[0].text, text)
  await close()
})

test('the bot’s own actions: called by a person, held against their schemas, forbidden to integrations', async () => {
  const numbers = (...names) => ({ type: 'object', properties: Object.fromEntries(names.map((n) => [n, { type: 'number' }])), required: names })
  const own = await makeBot({ url: program.url, actions: { add: { input: { schema: numbers('a', 'b') }, output: { schema: numbers('sum') } } } })
  const call = (input, client = own.client, type = 'add') => client.callAction({ type, input })
  assert.deepEqual(await call({ a: 1, b: 2 }), { output: { sum: 3 }, meta: { cached: false } })
  await rejects(call({ a: -1, b: 2 }), 'Runtime', /^no negative numbers$/)
  await rejects(call({ a: 'x', b: 2 }), 'InvalidDataFormat', /input\.a/)
  await rejects(call({ a: 1, b: 2, wrong: true }), 'InvalidDataFormat', /output\.sum/)
  await rejects(call({}, own.client, 'nope'), 'InvalidPayload', /add/)
  await rejects(call({ a: 1, b: 2 }, own.integration), 'Forbidden')
  const bad = admin().updateBot({ id: own.id, actions: { add: { input: { schema: { type: 'nonsense' } }, output: { schema: {} } } } })
  await rejects(bad, 'InvalidJsonSchema', /actions\.add\.input\.schema/)
})
