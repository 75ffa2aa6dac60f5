// Messages and events of the Chat API with the built-in bot, and what a listener hears of them.
import assert from 'node:assert/strict'
import { chat, chatUrl, collect, env, asBot, fresh, fromBot, fromUser, listen, ofType, raw, rejects, talk, test, until } from '../lib/parley.mjs'

const url = 'https://example.org/a'
const button = { action: 'say', label: 'Hi', value: 'hi' }
const card = { type: 'card', title: 'A card', subtitle: 'below', imageUrl: url, actions: [button, { ...button, action: 'url' }, { ...button, action: 'postback' }] }
const options = [{ label: 'One', value: '1' }, { label: 'Two', value: '2' }]
const items = [
  { type: 'text', text: 'first' },
  { type: 'markdown', markdown: '*second*' },
  { type: 'image', imageUrl: url },
  { type: 'audio', audioUrl: url },
  { type: 'video', videoUrl: url },
  { type: 'file', fileUrl: url, title: 'a file' },
  { type: 'location', latitude: 1.5, longitude: -2.25, address: 'somewhere', title: 'there' },
]
const payloads = [
  ...items,
  { type: 'file', fileUrl: url },
  { type: 'location', latitude: 0, longitude: 0 },
  card,
  { type: 'card', title: 'bare', actions: [] },
  { type: 'carousel', items: [card, { ...card, title: 'Another' }] },
  { type: 'choice', text: 'Which?', options },
  { type: 'dropdown', text: 'Which?', options },
  { type: 'bloc', items },
]

test('a message reaches the bot and the answer every listener; lists show the same objects', async () => {
  const { client, id, signals, say, close } = await talk()
  const sent = await say('hello there')
  const mine = await signals.wait(fromUser)
  const answer = await signals.wait(fromBot)
  const { messages } = await client.listMessages({ conversationId: id })
  const bare = ({ isBot, ...m }) => m
  assert.deepEqual(messages, [bare(answer.data), bare(mine.data)])
  assert.deepEqual(bare(mine.data), sent)
  assert.match(answer.data.payload.text, /hello there/)
  assert.equal(answer.data.userId, env.BP_BOT_ID)
  assert.ok(answer.data.createdAt > mine.data.createdAt)
  for (const m of messages) {
    const { message } = await client.getMessage({ id: m.id })
    assert.deepEqual(message, m)
  }
  await close()
})

test('foreign ids stand in every answer and signal', async () => {
  const userId = fresh('user')
  const id = fresh('conv')
  const client = await chat.Client.connect({ apiUrl: chatUrl, userId })
  await client.createConversation({ id })
  const signals = await listen(client, { id })
  const { message } = await client.createMessage({ conversationId: id, payload: { type: 'text', text: 'x' } })
  const mine = (await signals.wait(fromUser)).data
  const answer = (await signals.wait(fromBot)).data
  for (const m of [message, mine]) assert.deepEqual([m.userId, m.conversationId], [userId, id])
  assert.equal(answer.conversationId, id)
  await signals.close()
})

test('a listener that comes right after the message still hears it and its answer', async () => {
  const client = await chat.Client.connect({ apiUrl: chatUrl })
  const { conversation } = await client.createConversation({})
  await client.createMessage({ conversationId: conversation.id, payload: { type: 'text', text: 'early' } })
  const signals = await listen(client, { id: conversation.id })
  await signals.wait(fromUser)
  await signals.wait(fromBot)
  assert.equal(signals.all.filter((s) => s.type === 'message_created').length, 2)
  await signals.close()
})

test('metadata comes back beside the payload, not in it', async () => {
  const { client, id, signals, say, close } = await talk()
  const metadata = { a: 1, deep: { list: [true, null, 'x'] } }
  const sent = await say('with metadata', { metadata })
  const heard = (await signals.wait(fromUser)).data
  const { messages } = await client.listMessages({ conversationId: id })
  for (const m of [sent, heard, messages.at(-1)]) {
    assert.deepEqual(m.metadata, metadata)
    assert.deepEqual(m.payload, { type: 'text', text: 'with metadata' })
  }
  const plain = await say('without')
  assert.equal('metadata' in plain, false)
  await close()
})

test('every payload type comes through unchanged', async () => {
  const { client, id, signals, close } = await talk()
  for (const payload of payloads) {
    const { message } = await client.createMessage({ conversationId: id, payload })
    assert.deepEqual(message.payload, payload)
    const heard = await signals.wait((s) => fromUser(s) && s.data.id === message.id)
    assert.deepEqual(heard.data.payload, payload)
    assert.deepEqual((await client.getMessage({ id: message.id })).message, message)
  }
  await close()
})

test('payloads that are not of their type are refused and nothing is stored', async () => {
  const { client, id, close } = await talk()
  const wrong = [
    {},
    { type: 'nope' },
    { type: 'text' },
    { type: 'text', text: '' },
    { type: 'text', text: 7 },
    { type: 'markdown', text: 'x' },
    { type: 'image', imageUrl: '' },
    { type: 'audio' },
    { type: 'video', imageUrl: url },
    { type: 'file', title: 'x' },
    { type: 'location', latitude: '1', longitude: 2 },
    { type: 'location', latitude: 1 },
    { type: 'card', actions: [] },
    { type: 'card', title: 'x' },
    { type: 'card', title: 'x', actions: [{ ...button, action: 'jump' }] },
    { type: 'card', title: 'x', actions: [{ action: 'say', label: 'x' }] },
    { type: 'carousel', items: {} },
    { type: 'carousel', items: [{ type: 'card', title: '' }] },
    { type: 'choice', text: 'x' },
    { type: 'choice', options },
    { type: 'dropdown', text: 'x', options: [{ label: 'x' }] },
    { type: 'bloc', items: [{ type: 'text', text: '' }] },
    { type: 'bloc', items: [{ type: 'card', title: 'x', actions: [] }] },
    { type: 'bloc', items: 'x' },
  ]
  for (const payload of wrong) {
    await rejects(client.createMessage({ conversationId: id, payload }), 'InvalidPayload').catch((e) =>
      assert.fail(`${JSON.stringify(payload)}: ${e.message}`),
    )
  }
  for (const payload of ['text', null, []]) await rejects(client.createMessage({ conversationId: id, payload }), 'InvalidPayload')
  await rejects(client.createMessage({ conversationId: id, payload: items[0], metadata: 'x' }), 'InvalidPayload')
  assert.deepEqual((await client.listMessages({ conversationId: id })).messages, [])
  await close()
})

test('a deleted message is gone and listeners hear of it', async () => {
  const { client, id, signals, say, close } = await talk()
  const sent = await say('to be deleted')
  await signals.wait(fromBot)
  await client.deleteMessage({ id: sent.id })
  const { data } = await signals.wait(ofType('message_deleted'))
  assert.deepEqual(data, { id: sent.id, conversationId: id, userId: client.user.id })
  await rejects(client.getMessage({ id: sent.id }), 'ResourceNotFound')
  const { messages } = await client.listMessages({ conversationId: id })
  assert.equal(messages.length, 1)
  await rejects(client.deleteMessage({ id: messages[0].id }), 'Forbidden')
  await close()
})

test('only its sender deletes a message', async () => {
  const { client, id, say, close } = await talk()
  const guest = await chat.Client.connect({ apiUrl: chatUrl })
  await client.addParticipant({ conversationId: id, userId: guest.user.id })
  const sent = await say('mine')
  await rejects(guest.deleteMessage({ id: sent.id }), 'Forbidden')
  const { message } = await guest.getMessage({ id: sent.id })
  assert.equal(message.userId, client.user.id)
  await close()
})

test('forty-five messages come in pages of twenty, newest first, stable while more arrive', async () => {
  const { client, id, signals, say, close } = await talk()
  const sent = []
  for (let i = 0; i < 22; i++) sent.push(await say(`m${i}`))
  await until(() => signals.all.filter(fromBot).length === 22, 'all answers')
  await say('one more')
  const first = await client.listMessages({ conversationId: id })
  await say('meanwhile')
  const rest = await collect((a) => client.listMessages(a), 'messages', { conversationId: id, nextToken: first.meta.nextToken })
  assert.equal(first.messages.length, 20)
  const all = [...first.messages, ...rest.items]
  assert.equal(new Set(all.map((m) => m.id)).size, all.length)
  assert.ok(all.length >= 45 && all.length <= 46, `${all.length} messages`)
  for (let i = 1; i < all.length; i++) assert.ok(all[i].createdAt < all[i - 1].createdAt, 'createdAt strictly decreases')
  const mine = all.filter((m) => m.userId === client.user.id).map((m) => m.payload.text).reverse()
  assert.deepEqual(mine, [...sent.map((m) => m.payload.text), 'one more'])
  await close()
})

test('messages that are sent at once have distinct times, and signals come in that order', async () => {
  const { client, id, signals, say, close } = await talk()
  const sent = await Promise.all(Array.from({ length: 30 }, (_, i) => say(`at once ${i}`)))
  await until(() => signals.all.filter(fromBot).length === 30, 'all answers')
  assert.equal(new Set(sent.map((m) => m.createdAt)).size, 30)
  const heard = signals.all.map((s) => s.data.createdAt)
  assert.deepEqual(heard, [...heard].sort())
  const { items } = await collect((a) => client.listMessages(a), 'messages', { conversationId: id })
  assert.deepEqual(items.map((m) => m.id).reverse(), signals.all.map((s) => s.data.id))
  await close()
})

test('events go to the bot and to listeners', async () => {
  const { client, id, signals, close } = await talk()
  const payload = { foo: 'bar', deep: { n: [1, 2] } }
  const { event } = await client.createEvent({ conversationId: id, payload })
  assert.deepEqual([event.payload, event.userId, event.conversationId], [payload, client.user.id, id])
  const heard = await signals.wait(ofType('event_created'))
  assert.deepEqual(heard.data, { ...event, isBot: false })
  assert.deepEqual((await client.getEvent({ id: event.id })).event, event)
  const { events } = await asBot(env.BP_BOT_ID).listEvents({ type: 'chat:custom', conversationId: id })
  assert.equal(events.length, 1)
  assert.deepEqual(events[0].payload.payload, payload)
  await close()
})

test('events that are not well formed are refused', async () => {
  const { client, id, close } = await talk()
  for (const payload of [undefined, 'x', [], 7]) await rejects(client.createEvent({ conversationId: id, payload }), 'InvalidPayload')
  await rejects(client.createEvent({ conversationId: fresh('none'), payload: {} }), 'ReferenceNotFound')
  await close()
})

test('unknown members, absent members and foreign shapes are InvalidPayload', async () => {
  const { client, id, close } = await talk()
  const send = (body) => raw('POST', '/messages', { base: chatUrl, token: null, headers: { 'x-user-key': client.user.key }, body })
  const good = { conversationId: id, payload: { type: 'text', text: 'x' } }
  const wrong = [{ ...good, extra: 1 }, { payload: good.payload }, { conversationId: id }, { ...good, conversationId: 7 }, [], 'x', '{', '']
  for (const body of wrong) {
    const answer = await send(typeof body === 'string' ? body : JSON.stringify(body))
    assert.equal(answer.body.type, 'InvalidPayload', JSON.stringify(body))
  }
  assert.deepEqual((await client.listMessages({ conversationId: id })).messages, [])
  await close()
})

test('text in every script survives the way to the bot and back', async () => {
  const { signals, say, close } = await talk()
  const text = 'žluťoučký · 你好 · 👩‍👩‍👧 · \u2028"\\ · ' + 'é'.repeat(9000)
  const sent = await say(text)
  assert.equal(sent.payload.text, text)
  assert.equal((await signals.wait(fromUser)).data.payload.text, text)
  assert.ok((await signals.wait(fromBot)).data.payload.text.includes(text))
  await close()
})
