// What a bot on the official SDK hears of once it subscribes to events of its integrations.
import assert from 'node:assert/strict'
import { after, before } from 'node:test'
import { startBot } from '../lib/bot.mjs'
import { admin, fromBot, makeBot, ofType, talk, test, until } from '../lib/parley.mjs'

let program
let bot
before(async () => {
  program = await startBot()
  bot = await makeBot({ url: program.url })
})
after(() => program?.stop())

const subscribe = (events) => admin().updateBot({ id: bot.id, subscriptions: { events } })
const event = (payload) => bot.integration.createEvent({ type: 'custom', payload }).then((r) => r.event)

test('an event that the bot subscribed to arrives, another is ignored at once, messages always arrive', async () => {
  await subscribe({ 'slack:reactionAdded': {} })
  const ignored = await event({ userId: 'u', conversationId: 'c', payload: { n: 1 } })
  assert.deepEqual([ignored.type, ignored.status], ['custom', 'ignored'])
  assert.ok(ignored.failureReason)
  assert.deepEqual((await bot.client.getEvent({ id: ignored.id })).event, { ...ignored, type: 'chat:custom' })
  assert.ok((await bot.client.listEvents({ status: 'ignored', type: 'chat:custom' })).events.some((e) => e.id === ignored.id))
  const own = (await bot.client.createEvent({ type: 'tick', payload: {} })).event
  assert.equal(own.status, 'pending')

  const t = await talk(bot.chatUrl)
  await t.say('hello')
  assert.equal((await t.signals.wait(fromBot)).data.payload.text, 'You said: hello')
  await t.client.createEvent({ conversationId: t.id, payload: { unheard: true } })
  await t.signals.wait((s) => s.type === 'event_created' && !s.data.isBot, 'the event, for the listeners')

  await subscribe({ 'chat:custom': {} })
  await t.client.createEvent({ conversationId: t.id, payload: { heard: true } })
  const { data } = await t.signals.wait((s) => s.type === 'event_created' && s.data.isBot, 'the answer of the bot')
  assert.deepEqual(data.payload, { heard: true })
  const here = (m) => m.kind === 'event' && m.conversationId === t.id
  await program.wait(here, 'what the program says of it') // over another channel than its answer
  assert.deepEqual(program.all.filter(here).map((m) => m.payload.payload), [{ heard: true }])
  await t.close()
})

test('without subscriptions all events arrive', async () => {
  for (const none of [null, {}]) {
    await subscribe({ 'slack:reactionAdded': {} })
    await subscribe(null)
    if (none) await subscribe(none)
    const t = await talk(bot.chatUrl)
    await t.client.createEvent({ conversationId: t.id, payload: { none: JSON.stringify(none) } })
    await t.signals.wait((s) => ofType('event_created')(s) && s.data.isBot, 'the answer of the bot')
    await until(async () => (await bot.client.listEvents({ conversationId: t.id, status: 'processed' })).events.length === 1, 'processed event')
    await t.close()
  }
})
