// The values of tags, messages from elsewhere and counts, with the official client as bot and as integration.
import assert from 'node:assert/strict'
import { before } from 'node:test'
import { collect, fresh, makeBot, rejects, test } from '../lib/parley.mjs'

let bot, b, i
before(async () => {
  bot = await makeBot({ url: 'http://127.0.0.1:1' })
  b = bot.client
  i = bot.integration
})

const values = async (client, args) => (await collect((a) => client.listTagValues(a), 'tags', args)).items.map((t) => t.value)

test('tags: the values of a tag, each once, in pages, in the view of bot and integration', async () => {
  const mark = fresh()
  const want = Array.from({ length: 23 }, (_, n) => `${mark}-${String(n).padStart(2, '0')}`)
  for (const fid of want) await i.createUser({ tags: { fid, profile: mark } })
  for (const nr of ['2', '1', '2']) await b.createUser({ tags: { mark: nr } })
  const ours = (all) => all.filter((v) => v.startsWith(mark))
  assert.deepEqual(ours(await values(b, { key: 'chat:fid', type: 'user' })), want)
  assert.deepEqual(ours(await values(i, { key: 'fid', type: 'user' })), want)
  assert.deepEqual(ours(await values(i, { key: 'profile', type: 'user' })), [mark])
  assert.deepEqual(await values(b, { key: 'mark', type: 'user' }), ['1', '2'])
  assert.deepEqual(await values(i, { key: 'mark', type: 'user' }), [])
  assert.deepEqual(await values(b, { key: 'fid', type: 'user' }), [])
  assert.deepEqual(await values(b, { key: 'mark', type: 'message' }), [])
  await rejects(b.listTagValues({ key: 'mark', type: 'event' }), 'InvalidQuery')
  await rejects(b.listTagValues({ key: 'a.b', type: 'user' }), 'InvalidIdentifier')
})

test('import: messages keep their time, once, and nobody is told', async () => {
  const { user } = await i.createUser({ tags: { fid: fresh() } })
  const { conversation } = await i.createConversation({ channel: 'channel', tags: {} })
  const old = (text, createdAt, userId = user.id) => ({
    conversationId: conversation.id, userId, type: 'text', payload: { text }, createdAt, tags: { fid: text }, discriminateByTags: ['fid'],
  })
  const history = [old('question', '2020-01-01T00:00:00.000Z'), old('answer', '2020-01-01T00:00:05.000Z', bot.id)]
  const { messages } = await i.importMessages({ messages: history })
  assert.deepEqual(messages.map((m) => [m.payload.text, m.direction, m.createdAt]), [
    ['question', 'incoming', history[0].createdAt],
    ['answer', 'outgoing', history[1].createdAt],
  ])
  assert.deepEqual((await i.importMessages({ messages: [...history].reverse() })).messages, [...messages].reverse())
  const listed = (await b.listMessages({ conversationId: conversation.id })).messages
  assert.deepEqual(listed.map((m) => m.id), messages.map((m) => m.id).reverse())
  assert.deepEqual((await b.listEvents({ conversationId: conversation.id })).events, [])
  await rejects(i.importMessages({ messages: [history[0], { ...history[1], userId: 'user_01ARZ3NDEKTSV4RRFFQ69G5FAV' }] }), 'ReferenceNotFound', /messages\[1\]\.userId/)
  await rejects(i.importMessages({ messages: Array(101).fill(history[0]) }), 'InvalidPayload', /messages/)
})

test('analytics: a bot and an integration count', async () => {
  assert.deepEqual(await b.trackAnalytics({ name: 'greeted', count: 1 }), {})
  assert.deepEqual(await i.trackAnalytics({ name: 'greeted', count: 20 }), {})
  await rejects(b.trackAnalytics({ name: 'greeted', count: 0 }), 'InvalidPayload', /count/)
  await rejects(b.trackAnalytics({ name: '', count: 1 }), 'InvalidPayload', /name/)
})
