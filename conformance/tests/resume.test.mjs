// A listener that is cut at any point and comes back misses nothing and hears nothing twice.
import assert from 'node:assert/strict'
import { setTimeout as pause } from 'node:timers/promises'
import { chat, chatUrl, collect, fromBot, fromUser, listen, ofType, talk, test, until } from '../lib/parley.mjs'
import { openStream } from '../lib/sse.mjs'

// A small generator, so that a failing run can be repeated.
function dice(seed) {
  let x = seed
  return (n) => {
    x = (Math.imul(x, 1664525) + 1013904223) >>> 0
    return Math.floor((x / 2 ** 32) * n)
  }
}

const ways = ['Last-Event-ID', '?lastEventId=', '?after=']

async function scene() {
  const t = await talk()
  await t.close()
  const url = `${chatUrl}/conversations/${t.id}/listen`
  const headers = { 'x-user-key': t.client.user.key }
  const open = (id, way = 'Last-Event-ID') => {
    if (id === undefined) return openStream(url, { headers })
    const query = way === 'Last-Event-ID' ? '' : way + encodeURIComponent(id)
    return openStream(url + query, { headers: query ? headers : { ...headers, 'last-event-id': id } })
  }
  return { ...t, open }
}

for (const [n, way] of ways.entries()) {
  test(`a reader cut at random points hears every message once, in order: ${way}`, async () => {
    const t = await scene()
    const roll = dice(20261120 + n)
    const heard = []
    let stream = await t.open()
    let done = false
    const total = 60
    const sending = (async () => {
      for (let i = 0; i < total; i++) {
        await t.say(`m${i}`)
        if (roll(4) === 0) await pause(roll(15))
      }
      done = true
    })()
    for (let cuts = 0; !done || cuts < 12; cuts++) {
      await pause(5 + roll(60))
      await stream.cut()
      heard.push(...stream.all)
      stream = await t.open(heard.at(-1)?.id ?? '0', way)
    }
    await sending
    await until(() => [...heard, ...stream.all].filter((s) => s.type === 'message_created').length >= 2 * total, 'every message and answer')
    await stream.cut()
    heard.push(...stream.all)
    const ids = heard.filter((s) => s.type === 'message_created').map((s) => s.data.id)
    const { items } = await collect((a) => t.client.listMessages(a), 'messages', { conversationId: t.id })
    assert.deepEqual(ids, items.map((m) => m.id).reverse())
    const positions = heard.map((s) => BigInt(s.id))
    for (let i = 1; i < positions.length; i++) assert.ok(positions[i] > positions[i - 1], 'positions rise')
  })
}

test('a reader that was away hears all that happened, of every kind', async () => {
  const t = await scene()
  const first = await t.open()
  await t.say('before')
  await first.wait(fromBot)
  const position = first.last()
  await first.cut()
  const sent = await t.say('away')
  await until(async () => (await t.client.listMessages({ conversationId: t.id })).messages.length === 4, 'the answer')
  const guest = await chat.Client.connect({ apiUrl: chatUrl })
  await t.client.addParticipant({ conversationId: t.id, userId: guest.user.id })
  await t.client.createEvent({ conversationId: t.id, payload: { n: 1 } })
  await t.client.removeParticipant({ conversationId: t.id, userId: guest.user.id })
  await t.client.deleteMessage({ id: sent.id })
  const back = await t.open(position)
  await back.wait(ofType('message_deleted'))
  // The bot's own event may come anywhere behind the user's.
  const kinds = back.all.filter((s) => !fromUser(s) && !(s.type === 'event_created' && s.data.isBot)).map((s) => s.type)
  assert.deepEqual(kinds, ['message_created', 'participant_added', 'event_created', 'participant_removed', 'message_deleted'])
  await back.cut()
})

test('position 0 replays the whole conversation', async () => {
  const t = await scene()
  for (let i = 0; i < 30; i++) await t.say(`m${i}`)
  const stream = await t.open('0')
  await until(() => stream.all.filter((s) => s.type === 'message_created').length === 60, 'all of it')
  assert.deepEqual(stream.all.filter(fromUser).map((s) => s.data.payload.text), Array.from({ length: 30 }, (_, i) => `m${i}`))
  await stream.cut()
})

test('a position in the future or of no form is refused or taken as now, never as an error of the server', async () => {
  const t = await scene()
  for (const id of ['x', '-1', '1e3', '99999999999999999999', '9007199254740993']) {
    const stream = await t.open(id)
    assert.ok(stream.status === 200 || stream.status === 400, `${id}: ${stream.status}`)
    await stream.cut()
  }
})

test('the headers of a stream are there at once', async () => {
  const t = await scene()
  const before = Date.now()
  const stream = await t.open()
  assert.ok(Date.now() - before < 15_000)
  assert.equal(stream.status, 200)
  assert.match(stream.headers['content-type'], /^text\/event-stream/)
  assert.match(stream.headers['cache-control'] ?? '', /no-cache|no-store/)
  await stream.cut()
})

test('a hundred listeners hear the same in the same order', async () => {
  const t = await scene()
  const all = await Promise.all(Array.from({ length: 100 }, () => t.open()))
  for (let i = 0; i < 5; i++) await t.say(`m${i}`)
  await until(() => all.every((s) => s.all.length >= 10), 'all signals at all listeners')
  const first = all[0].all.map((s) => s.id)
  for (const s of all) assert.deepEqual(s.all.map((x) => x.id), first)
  await Promise.all(all.map((s) => s.cut()))
})

test('the official listener and a plain reader hear the same', async () => {
  const t = await scene()
  const [official, plain] = await Promise.all([listen(t.client, { id: t.id }), t.open()])
  await t.say('same')
  await Promise.all([official.wait(fromBot), plain.wait(fromBot)])
  assert.deepEqual(plain.all.map(({ id, ...s }) => s), official.all)
  await official.close()
  await plain.cut()
})
