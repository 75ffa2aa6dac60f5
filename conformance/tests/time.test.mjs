// What happens at a time, through the official client and with a bot on the official SDK: schedules, expiries, recurring events.
import assert from 'node:assert/strict'
import { after, before } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'
import { startBot } from '../lib/bot.mjs'
import { admin, fresh, fromBot, makeBot, rejects, talk, test, until } from '../lib/parley.mjs'

let program
let bot
let started
before(async () => {
  program = await startBot()
  bot = await makeBot({ url: program.url })
  started = Date.now()
  await admin().updateBot({
    id: bot.id,
    recurringEvents: { minutely: { schedule: { cron: '* * * * *' }, type: 'timely', payload: { recurs: true } } },
  })
})
after(() => program?.stop())

const inMs = (ms) => new Date(Date.now() + ms).toISOString()
const timely = (n) => program.wait((m) => m.kind === 'timely' && m.payload.n === n, `event ${n}`)
const schedule = (n, when, more = {}) => bot.client.createEvent({ type: 'timely', payload: { n }, schedule: when, ...more }).then((r) => r.event)
const status = (id) => bot.client.getEvent({ id }).then((r) => r.event.status)

test('a scheduled event waits for its time and keeps its id', async () => {
  const event = await schedule(1, { delay: 4000 })
  assert.deepEqual([event.status, event.failureReason], ['scheduled', null])
  const due = Date.parse(event.createdAt) + 4000
  assert.ok((await bot.client.listEvents({ status: 'scheduled' })).events.some((e) => e.id === event.id))
  const got = await timely(1)
  assert.equal(got.id, event.id)
  assert.ok(got.at >= due, `${due - got.at} ms early`)
  await until(async () => (await status(event.id)) === 'processed', 'the end of the event')
  assert.equal((await bot.client.getEvent({ id: event.id })).event.createdAt, event.createdAt)
  const other = await schedule(2, { dateTime: inMs(4000) })
  assert.equal(other.status, 'scheduled')
  assert.equal((await timely(2)).id, other.id)
})

test('a schedule in the past is now', async () => {
  for (const [n, when] of Object.entries({ 10: { delay: 0 }, 11: { dateTime: '2001-09-09T01:46:40.000Z' } })) {
    assert.equal((await schedule(Number(n), when)).status, 'pending')
    await timely(Number(n))
  }
})

test('schedules that say nothing, too much or too far are refused', async () => {
  const decade = 10 * 366 * 24 * 3600e3
  for (const [when, text] of [
    [{}, /dateTime or delay/],
    [{ delay: 5, dateTime: inMs(5000) }, /not both/],
    [{ delay: -1 }, /schedule\.delay/],
    [{ delay: '1000' }, /schedule\.delay/],
    [{ delay: decade }, /ten years/],
    [{ dateTime: inMs(decade) }, /ten years/],
    [{ dateTime: 'tomorrow, nine o’clock' }, /schedule\.dateTime/],
    [{ dateTime: '2026-02-30T00:00:00.000Z' }, /schedule\.dateTime/],
  ]) {
    await rejects(schedule(0, when), 'InvalidPayload', text)
  }
})

test('cancelScheduledEvent', async () => {
  const event = await schedule(20, { delay: 60_000 })
  const theirs = (await bot.integration.createEvent({ type: 'custom', payload: {}, schedule: { delay: 60_000 } })).event
  await rejects(bot.integration.cancelScheduledEvent({ id: event.id }), 'ResourceNotFound')
  assert.deepEqual(await bot.client.cancelScheduledEvent({ id: event.id }), {})
  assert.equal(await status(event.id), 'canceled')
  await bot.client.cancelScheduledEvent({ id: event.id })
  await bot.integration.cancelScheduledEvent({ id: theirs.id })
  const gone = await schedule(21, { delay: 1 })
  await timely(21)
  await until(async () => (await status(gone.id)) === 'processed', 'the end of the event')
  await rejects(bot.client.cancelScheduledEvent({ id: gone.id }), 'ResourceNotFound', /processed/)
  await rejects(bot.client.cancelScheduledEvent({ id: 'evt_01AAAAAAAAAAAAAAAAAAAAAAAA' }), 'ResourceNotFound')
})

test('a scheduled message is made at its time, as it was promised', async () => {
  const t = await talk(bot.chatUrl)
  await t.say('hello')
  await t.signals.wait(fromBot)
  const { conversation } = await bot.client.listMessages({}).then(async (r) => {
    const m = r.messages.find((m) => m.payload.text === 'You said: hello')
    return bot.client.getConversation({ id: m.conversationId })
  })
  const when = inMs(6000)
  const later = (more) =>
    bot.client.createMessage({ conversationId: conversation.id, userId: bot.id, type: 'text', payload: { text: 'later' }, tags: {}, ...more }).then((r) => r.message)
  const message = await later({ schedule: { dateTime: when } })
  assert.deepEqual([message.createdAt, message.direction, message.payload], [when, 'outgoing', { text: 'later' }])
  const taken = await later({ schedule: { delay: 6000 } })
  await rejects(bot.client.getMessage({ id: message.id }), 'ResourceNotFound')
  await bot.client.deleteMessage({ id: taken.id })
  await later({ payload: { text: 'now' } })
  assert.equal((await t.signals.wait(fromBot)).data.payload.text, 'now')
  const { data } = await t.signals.wait(fromBot, 'the scheduled message')
  assert.equal(data.payload.text, 'later')
  assert.ok(data.createdAt >= when, `made at ${data.createdAt}, due at ${when}`)
  const made = (await bot.client.getMessage({ id: message.id })).message
  assert.deepEqual({ ...made, createdAt: when, updatedAt: when }, message)
  await rejects(bot.client.getMessage({ id: taken.id }), 'ResourceNotFound')
  await t.close()
})

test('getOrCreateMessage finds what is promised and what was made of it', async () => {
  const { user } = await bot.integration.createUser({ tags: {} })
  const { conversation } = await bot.integration.createConversation({ channel: 'channel', tags: {} })
  const fid = fresh('nr')
  const get = (more = {}) =>
    bot.integration
      .getOrCreateMessage({ conversationId: conversation.id, userId: user.id, type: 'text', payload: { text: 'x' }, tags: { fid }, ...more })
      .then((r) => r.message)
  const first = await get({ schedule: { delay: 4000 } })
  assert.deepEqual(await get({ schedule: { delay: 9000 } }), first)
  assert.deepEqual(await get(), first)
  const heard = await program.wait((m) => m.kind === 'message' && m.conversationId === conversation.id, 'the message')
  assert.equal(heard.id, first.id)
  assert.equal((await get()).id, first.id)
  assert.equal((await bot.client.listMessages({ conversationId: conversation.id })).messages.filter((m) => m.direction === 'incoming').length, 1)
})

test('a state expires when it has been idle, and the bot is told once', async () => {
  const key = { type: 'bot', id: bot.id, name: 'session' }
  const { state } = await bot.client.setState({ ...key, payload: { n: 1 }, expiry: 6000 })
  await pause(2000)
  await bot.client.getState(key) // it is in use
  const used = Date.now()
  const told = await program.wait((m) => m.kind === 'expired' && m.state.name === 'session', 'the end of the state')
  assert.deepEqual(told.state, state)
  assert.ok(told.at >= used + 5900, `told ${told.at - used} ms after its last use`)
  await rejects(bot.client.getState(key), 'ResourceNotFound')
  await bot.client.setState({ ...key, payload: { n: 2 }, expiry: 60_000 })
  assert.deepEqual((await bot.client.setStateExpiry({ ...key, expiry: null })).state.payload, { n: 2 })
  await bot.client.setStateExpiry({ ...key, expiry: 300 })
  const again = await program.wait((m) => m.kind === 'expired' && m.state.payload.n === 2, 'the end of the second state')
  assert.notEqual(again.state.id, state.id)
  for (const expiry of [0, -5, 2592000001, '60000']) {
    await rejects(bot.client.setState({ ...key, payload: {}, expiry }), 'InvalidPayload', /expiry/)
    await rejects(bot.client.setStateExpiry({ ...key, expiry }), 'InvalidPayload', /expiry/)
  }
  await rejects(bot.client.setStateExpiry({ ...key, expiry: 1 }), 'ResourceNotFound')
  assert.equal(program.all.filter((m) => m.kind === 'expired').length, 2)
})

test('states are held against what the bot declares, and have the expiry it declares', async () => {
  const { id, client } = bot
  const schema = { type: 'object', properties: { n: { type: 'number' } }, required: ['n'], additionalProperties: false }
  await admin().updateBot({ id, states: { counted: { type: 'bot', schema, expiry: 4000 } } })
  const key = { type: 'bot', id, name: 'counted' }
  const bad = /payload\.n/
  await rejects(client.setState({ ...key, payload: { n: 'one' } }), 'InvalidDataFormat', bad)
  await rejects(client.getOrSetState({ ...key, payload: {} }), 'InvalidDataFormat', bad)
  await client.setState({ ...key, payload: { n: 1 } })
  await rejects(client.patchState({ ...key, payload: { n: null } }), 'InvalidDataFormat', bad)
  await rejects(client.setState({ type: 'bot', id, name: 'undeclared', payload: {} }), 'InvalidPayload', /not declared/)
  await program.wait((m) => m.kind === 'expired' && m.state.name === 'counted', 'the end of the declared state')
  await rejects(admin().updateBot({ id, states: { broken: { type: 'bot', schema: { type: 'nothing' } } } }), 'InvalidJsonSchema', /states\.broken\.schema/)
  await admin().updateBot({ id, states: { counted: null } })
})

test('recurring events that never come or that nobody may make are refused by name', async () => {
  const declare = (cron, type = 'timely', payload = {}) => admin().updateBot({ id: bot.id, recurringEvents: { odd: { schedule: { cron }, type, payload } } })
  for (const cron of ['', 'every day', '* * * *', '60 * * * *', '0 0 30 2 *', '*/0 * * * *', '0 * * * * *']) {
    await rejects(declare(cron), 'InvalidPayload', /recurringEvents\.odd\.schedule\.cron/)
  }
  await rejects(declare('@daily', 'message_created'), 'InvalidPayload', /recurringEvents\.odd\.type/)
  await rejects(declare('@daily', 'chat:custom'), 'InvalidPayload', /recurringEvents\.odd\.type/)
  const other = await makeBot()
  const daily = { schedule: { cron: '0 9 * * 1-5' }, type: 'digest', payload: { a: [1] } }
  assert.deepEqual((await admin().updateBot({ id: other.id, recurringEvents: { daily } })).bot.recurringEvents, {
    daily: { ...daily, failedAttempts: 0, lastFailureReason: null },
  })
  assert.deepEqual((await admin().updateBot({ id: other.id, recurringEvents: { daily: null } })).bot.recurringEvents, {})
})

test(
  'a recurring event comes round by the minute',
  async () => {
    const got = await program.wait((m) => m.kind === 'timely' && m.payload.recurs, 'the recurring event', 120_000)
    const minute = Math.ceil(started / 60_000) * 60_000
    assert.ok(got.at >= minute && got.at < minute + 60_000, `came ${got.at - minute} ms after the minute`)
    assert.equal(await status(got.id).then((s) => ['pending', 'processed'].includes(s)), true)
    const { minutely } = (await admin().getBot({ id: bot.id })).bot.recurringEvents
    assert.deepEqual([minutely.failedAttempts, minutely.lastFailureReason, minutely.type], [0, null, 'timely'])
    await admin().updateBot({ id: bot.id, recurringEvents: { minutely: null } })
  },
  { timeout: 180_000 },
)
