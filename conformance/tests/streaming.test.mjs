// A message that an SDK bot shows while it writes it. The pinned chat client is older than these signals and hands them over
// as unknown; a plain reader and a socket read them here.
import assert from 'node:assert/strict'
import { after, before } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'
import WebSocket from 'ws'
import { startBot } from '../lib/bot.mjs'
import { fromBot, mailbox, makeBot, ofType, talk, test, until } from '../lib/parley.mjs'
import { openStream } from '../lib/sse.mjs'

let program
let bot
before(async () => {
  program = await startBot()
  bot = await makeBot({ url: program.url })
})
after(() => program?.stop())

async function scene() {
  const t = await talk(bot.chatUrl)
  const url = `${bot.chatUrl}/conversations/${t.id}/listen`
  const open = (id) => openStream(url, { headers: { 'x-user-key': t.client.user.key, ...(id === undefined ? {} : { 'last-event-id': id }) } })
  return { ...t, url, open }
}

const delta = ofType('message_stream_delta')
const complete = ofType('message_stream_complete')
const whole = Array.from({ length: 60 }, (_, n) => `word ${n} `).join('')
const text = (all) => all.filter(delta).map((s) => s.data.delta).join('')

// unbroken asserts that the deltas follow each other and begin the message.
function unbroken(all, from = 0) {
  const heard = all.filter(delta)
  assert.deepEqual(heard.map((s) => s.data.sequence), heard.map((_, n) => from + n))
  assert.ok(whole.includes(text(all)), text(all))
}

test('deltas add up, are few, and end in the message', async () => {
  const t = await scene()
  const reader = await t.open('0')
  const socket = new WebSocket(`${t.url.replace(/^http/, 'ws')}?after=0&x-user-key=${encodeURIComponent(t.client.user.key)}`)
  const frames = mailbox()
  socket.on('message', (data) => data.toString() !== 'ping' && frames.put(JSON.parse(data.toString())))
  const sent = await t.say('stream')
  await reader.wait(fromBot, 'the message')
  await t.signals.wait(fromBot)
  const [done, created] = reader.all.slice(-2)
  assert.equal(done.type, 'message_stream_complete')
  const { isBot, ...message } = created.data
  assert.ok(isBot)
  assert.deepEqual(done.data, { streamId: sent.id, message })
  assert.deepEqual([message.payload.text, message.metadata], [whole, { streamId: sent.id }])
  const deltas = reader.all.filter(delta)
  assert.ok(deltas.length > 1 && deltas.length < 50, `${deltas.length} signals of 60 deltas`)
  for (const { data } of deltas) {
    const { sequence, delta, ...rest } = data
    assert.deepEqual(rest, { streamId: sent.id, conversationId: t.id, userId: bot.id, createdAt: sent.createdAt })
  }
  unbroken(reader.all)
  assert.ok(whole.startsWith(text(reader.all)))
  await until(() => frames.all.length === reader.all.length, 'the same over the socket')
  assert.deepEqual(frames.all, reader.all.map(({ id, ...signal }) => signal))
  assert.equal(t.signals.all.filter((s) => s.type === 'unknown').length, deltas.length + 1)
  socket.close()
  await reader.cut()
  await t.close()
})

test('a reader cut again and again while a message is written goes on where it was', async () => {
  const t = await scene()
  let reader = await t.open('0')
  const heard = []
  const finished = t.signals.wait(fromBot)
  await t.say('stream')
  await reader.wait(delta)
  for (let cuts = 0; cuts < 8; cuts++) {
    await pause(60)
    await reader.cut()
    heard.push(...reader.all)
    reader = await t.open(heard.at(-1).id)
  }
  await finished
  await until(() => [...heard, ...reader.all].some(fromBot), 'the message')
  await reader.cut()
  heard.push(...reader.all)
  unbroken(heard)
  assert.ok(whole.startsWith(text(heard)))
  assert.deepEqual(heard.slice(-2).map((s) => s.type), ['message_stream_complete', 'message_created'])
  assert.equal(new Set(heard.map((s) => s.id)).size, heard.length)
  await t.close()
})

test('who comes when the message is there hears it without its deltas', async () => {
  const t = await scene()
  await t.say('stream')
  await t.signals.wait(fromBot)
  const reader = await t.open('0')
  await reader.wait(fromBot)
  assert.deepEqual(reader.all.map((s) => s.type), ['message_created', 'message_stream_complete', 'message_created'])
  await reader.cut()
  await t.close()
})

test('an abort ends a stream without a message', async () => {
  const t = await scene()
  const reader = await t.open('0')
  const sent = await t.say('falter')
  const { data } = await reader.wait(ofType('message_stream_abort'))
  assert.deepEqual(data, { streamId: sent.id, conversationId: t.id })
  assert.ok(!reader.all.some(complete))
  const later = await t.open('0')
  await later.wait(ofType('message_stream_abort'))
  assert.ok(!later.all.some(delta))
  await Promise.all([reader.cut(), later.cut()])
  await t.close()
})
