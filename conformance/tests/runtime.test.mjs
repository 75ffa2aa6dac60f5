// Every Runtime operation that the main job needs, with the official client as bot and as integration.
import assert from 'node:assert/strict'
import { before } from 'node:test'
import { asBot, asIntegration, chat, collect, fresh, fromBot, makeBot, rejects, talk, test, until } from '../lib/parley.mjs'
import { operations } from '../lib/spec.mjs'

const nowhere = 'conv_01ARZ3NDEKTSV4RRFFQ69G5FAV'
const nobody = 'user_01ARZ3NDEKTSV4RRFFQ69G5FAV'

let bot, b, i
before(async () => {
  bot = await makeBot({ url: 'http://127.0.0.1:1' })
  b = bot.client
  i = bot.integration
})

// room is a conversation of the installation with one user in it.
async function room(tags = {}) {
  const { user } = await i.createUser({ tags: {}, name: 'Someone' })
  const { conversation } = await i.createConversation({ channel: 'channel', tags })
  await i.addParticipant({ id: conversation.id, userId: user.id })
  return { user, conversation, conversationId: conversation.id, userId: user.id }
}
// of is who speaks where.
const of = ({ conversationId, userId }) => ({ conversationId, userId })
const text = (text, more = {}) => ({ type: 'text', payload: { text }, tags: {}, ...more })

// ── users ──────────────────────────────────────────────────────────────────────

test('users: create, get, update, delete as integration', async () => {
  const { user } = await i.createUser({ tags: { fid: fresh('u') }, name: 'Ann', pictureUrl: 'https://example.org/a.png' })
  assert.match(user.id, /^user_[0-9A-Z]{26}$/)
  assert.deepEqual((await i.getUser({ id: user.id })).user, user)
  const { user: changed } = await i.updateUser({ id: user.id, name: 'Bea', tags: { profile: 'p' } })
  assert.deepEqual([changed.name, changed.pictureUrl, changed.tags], ['Bea', user.pictureUrl, { ...user.tags, profile: 'p' }])
  assert.ok(changed.updatedAt >= user.updatedAt && changed.createdAt === user.createdAt)
  const { user: cleared } = await i.updateUser({ id: user.id, name: null, pictureUrl: null, tags: { profile: '' } })
  assert.deepEqual([cleared.name, cleared.pictureUrl, cleared.tags], [undefined, undefined, user.tags])
  await i.deleteUser({ id: user.id })
  await rejects(i.getUser({ id: user.id }), 'ResourceNotFound')
})

test('users: the bot keeps its own tags on a user of the installation', async () => {
  const fid = fresh('u')
  const { user } = await i.createUser({ tags: { fid } })
  const { user: seen } = await b.updateUser({ id: user.id, tags: { level: 'gold' } })
  assert.deepEqual(seen.tags, { 'chat:fid': fid, level: 'gold' })
  assert.deepEqual((await i.getUser({ id: user.id })).user.tags, { fid })
  await i.updateUser({ id: user.id, tags: { level: 'mine' } }).catch(() => {})
  assert.equal((await b.getUser({ id: user.id })).user.tags.level, 'gold')
})

test('users: getOrCreate finds by all tags, or by those named', async () => {
  const fid = fresh('goc')
  const first = (await i.getOrCreateUser({ tags: { fid }, name: 'One' })).user
  assert.equal((await i.getOrCreateUser({ tags: { fid } })).user.id, first.id)
  const two = (await i.getOrCreateUser({ tags: { fid, profile: 'p' } })).user
  assert.notEqual(two.id, first.id)
  const named = (await i.getOrCreateUser({ tags: { fid, profile: 'q' }, discriminateByTags: ['fid'] })).user
  assert.ok([first.id, two.id].includes(named.id))
  const twins = await Promise.all(Array.from({ length: 20 }, () => i.getOrCreateUser({ tags: { fid: `${fid}x` } })))
  assert.equal(new Set(twins.map((t) => t.user.id)).size, 1)
})

test('users: the bot creates its own', async () => {
  const mark = fresh('mark')
  const { user } = await b.createUser({ tags: { mark }, name: 'Of the bot' })
  assert.deepEqual(user.tags, { mark })
  assert.equal((await b.getOrCreateUser({ tags: { mark } })).user.id, user.id)
  const { users } = await b.listUsers({ tags: { mark } })
  assert.deepEqual(users.map((u) => u.id), [user.id])
})

test('users: lists page, filter, sort; the bot itself is not listed', async () => {
  const mark = fresh('mark')
  const made = []
  for (let n = 0; n < 25; n++) made.push((await b.createUser({ tags: { mark, nr: `${n}` } })).user)
  const { items, sizes } = await collect((a) => b.listUsers(a), 'users', { tags: { mark } })
  assert.deepEqual(items.map((u) => u.id), made.map((u) => u.id).reverse())
  assert.deepEqual(sizes, [20, 5])
  const rising = await collect((a) => b.listUsers(a), 'users', { tags: { mark }, sortField: 'createdAt', sortDirection: 'asc' })
  assert.deepEqual(rising.items.map((u) => u.id), made.map((u) => u.id))
  assert.deepEqual((await b.listUsers({ tags: { mark, nr: '7' } })).users.map((u) => u.id), [made[7].id])
  await b.updateUser({ id: made[3].id, name: 'Latest' })
  const byUpdate = await b.listUsers({ tags: { mark }, sortField: 'updatedAt', sortDirection: 'desc' })
  assert.equal(byUpdate.users[0].id, made[3].id)
  const everyone = await collect((a) => b.listUsers(a), 'users')
  assert.ok(!everyone.items.some((u) => u.id === bot.id))
  const from = made[20].createdAt
  const late = await collect((a) => b.listUsers(a), 'users', { tags: { mark }, afterDate: from })
  assert.ok(late.items.some((u) => u.id === made[20].id) && late.items.every((u) => u.createdAt >= from))
  const early = await collect((a) => b.listUsers(a), 'users', { tags: { mark }, beforeDate: from })
  assert.ok(early.items.some((u) => u.id === made[20].id) && early.items.every((u) => u.createdAt <= from))
})

test('users: listed by conversation are its participants', async () => {
  const r = await room()
  const { users } = await b.listUsers({ conversationId: r.conversationId })
  assert.deepEqual(users.map((u) => u.id), [r.userId])
})

// ── conversations ──────────────────────────────────────────────────────────────

test('conversations: create, get, update, delete as integration', async () => {
  const fid = fresh('c')
  const { conversation } = await i.createConversation({ channel: 'channel', tags: { fid } })
  assert.match(conversation.id, /^conv_[0-9A-Z]{26}$/)
  assert.deepEqual([conversation.channel, conversation.integration, conversation.tags], ['channel', 'chat', { fid }])
  assert.deepEqual((await i.getConversation({ id: conversation.id })).conversation, conversation)
  const { conversation: seen } = await b.updateConversation({ id: conversation.id, tags: { topic: 'x' } })
  assert.deepEqual(seen.tags, { 'chat:fid': fid, topic: 'x' })
  const { conversation: after } = await i.updateConversation({ id: conversation.id, tags: { owner: 'me' } })
  assert.deepEqual(after.tags, { fid, owner: 'me' })
  await i.deleteConversation({ id: conversation.id })
  await rejects(i.getConversation({ id: conversation.id }), 'ResourceNotFound')
})

test('conversations: getOrCreate counts channel and the tags of its caller', async () => {
  const fid = fresh('c')
  const first = (await i.getOrCreateConversation({ channel: 'channel', tags: { fid } })).conversation
  await b.updateConversation({ id: first.id, tags: { topic: 'of the bot' } })
  assert.equal((await i.getOrCreateConversation({ channel: 'channel', tags: { fid } })).conversation.id, first.id)
  const twins = await Promise.all(Array.from({ length: 20 }, () => i.getOrCreateConversation({ channel: 'channel', tags: { fid: `${fid}x` } })))
  assert.equal(new Set(twins.map((t) => t.conversation.id)).size, 1)
  const named = await i.getOrCreateConversation({ channel: 'channel', tags: { fid, owner: 'o' }, discriminateByTags: ['fid'] })
  assert.equal(named.conversation.id, first.id)
  assert.notEqual((await i.getOrCreateConversation({ channel: 'channel', tags: { fid, owner: 'o' } })).conversation.id, first.id)
})

test('conversations: an undeclared channel is refused', async () => {
  await assert.rejects(i.createConversation({ channel: 'nope', tags: {} }))
})

test('conversations: lists page, filter by tag, participant, channel and integration, sort', async () => {
  const owner = fresh('owner')
  const { user } = await i.createUser({ tags: {} })
  const made = []
  for (let n = 0; n < 23; n++) made.push((await i.createConversation({ channel: 'channel', tags: { owner } })).conversation)
  await i.addParticipant({ id: made[4].id, userId: user.id })
  await i.addParticipant({ id: made[9].id, userId: user.id })
  const ids = made.map((c) => c.id)
  const asIntegration = await collect((a) => i.listConversations(a), 'conversations', { tags: { owner } })
  assert.deepEqual(asIntegration.items.map((c) => c.id), [...ids].reverse())
  assert.deepEqual(asIntegration.sizes, [20, 3])
  const asTheBot = await collect((a) => b.listConversations(a), 'conversations', { tags: { 'chat:owner': owner } })
  assert.deepEqual(asTheBot.items.map((c) => c.id), [...ids].reverse())
  assert.deepEqual((await b.listConversations({ tags: { owner } })).conversations, [])
  const rising = await b.listConversations({ tags: { 'chat:owner': owner }, sortField: 'createdAt', sortDirection: 'asc' })
  assert.deepEqual(rising.conversations.map((c) => c.id), ids.slice(0, 20))
  const his = await b.listConversations({ participantIds: [user.id] })
  assert.deepEqual(his.conversations.map((c) => c.id), [ids[9], ids[4]])
  const { conversations } = await b.listConversations({ channel: 'channel', integrationName: 'chat' })
  assert.equal(conversations.length, 20)
  assert.deepEqual((await b.listConversations({ channel: 'other' })).conversations, [])
  assert.deepEqual((await b.listConversations({ integrationName: 'other' })).conversations, [])
})

test('conversations: a page token keeps its place while others are created', async () => {
  const owner = fresh('owner')
  const made = []
  for (let n = 0; n < 30; n++) made.unshift((await i.createConversation({ channel: 'channel', tags: { owner } })).conversation.id)
  const first = await i.listConversations({ tags: { owner } })
  for (let n = 0; n < 5; n++) await i.createConversation({ channel: 'channel', tags: { owner } })
  const second = await i.listConversations({ tags: { owner }, nextToken: first.meta.nextToken })
  assert.deepEqual([...first.conversations, ...second.conversations].map((c) => c.id), made)
  assert.equal(second.meta.nextToken, undefined)
})

// ── participants ───────────────────────────────────────────────────────────────

test('participants: add, get, list, remove', async () => {
  const r = await room()
  const { user } = await i.createUser({ tags: {}, name: 'Second' })
  const { participant } = await i.addParticipant({ id: r.conversationId, userId: user.id })
  assert.deepEqual(participant, user)
  await i.addParticipant({ id: r.conversationId, userId: user.id })
  assert.deepEqual((await i.getParticipant({ id: r.conversationId, userId: user.id })).participant, user)
  const { participants } = await b.listParticipants({ id: r.conversationId })
  assert.deepEqual(new Set(participants.map((p) => p.id)), new Set([r.userId, user.id]))
  await i.removeParticipant({ id: r.conversationId, userId: user.id })
  await rejects(i.getParticipant({ id: r.conversationId, userId: user.id }), 'ResourceNotFound')
  await rejects(i.addParticipant({ id: r.conversationId, userId: nobody }), 'ReferenceNotFound')
  await rejects(i.addParticipant({ id: nowhere, userId: user.id }), 'ResourceNotFound')
})

test('participants: list pages of twenty', async () => {
  const r = await room()
  const users = await Promise.all(Array.from({ length: 24 }, () => i.createUser({ tags: {} })))
  for (const { user } of users) await i.addParticipant({ id: r.conversationId, userId: user.id })
  const { items, sizes } = await collect((a) => b.listParticipants(a), 'participants', { id: r.conversationId })
  assert.equal(new Set(items.map((u) => u.id)).size, 25)
  assert.deepEqual(sizes, [20, 5])
})

// ── messages ───────────────────────────────────────────────────────────────────

test('messages: of the integration are incoming, of the bot outgoing', async () => {
  const r = await room()
  const { message: incoming } = await i.createMessage({ ...of(r), ...text('hi', { tags: { fid: fresh('m') } }) })
  const { message: outgoing } = await b.createMessage({ conversationId: r.conversationId, userId: bot.id, ...text('hello') })
  assert.deepEqual([incoming.direction, outgoing.direction], ['incoming', 'outgoing'])
  assert.deepEqual([incoming.userId, outgoing.userId], [r.userId, bot.id])
  assert.ok(outgoing.createdAt > incoming.createdAt)
  assert.deepEqual((await i.getMessage({ id: incoming.id })).message, incoming)
  const { message: seen } = await b.getMessage({ id: incoming.id })
  assert.deepEqual(seen.tags, { 'chat:fid': incoming.tags.fid })
  const { messages } = await b.listMessages({ conversationId: r.conversationId })
  assert.deepEqual(messages.map((m) => m.id), [outgoing.id, incoming.id])
})

test('messages: the bot may not post as somebody else, and is told how', async () => {
  const r = await room()
  const e = await rejects(b.createMessage({ ...of(r), ...text('x') }), 'InvalidPayload')
  assert.equal(e.message, `User "${r.userId}" is not the bot; to post as this user send x-integration-id`)
  assert.deepEqual((await b.listMessages({ conversationId: r.conversationId })).messages, [])
})

test('messages: a user who posts becomes a participant', async () => {
  const { conversation } = await i.createConversation({ channel: 'channel', tags: {} })
  const { user } = await i.createUser({ tags: {} })
  await i.createMessage({ conversationId: conversation.id, userId: user.id, ...text('here I am') })
  const { participants } = await b.listParticipants({ id: conversation.id })
  assert.deepEqual(participants.map((p) => p.id), [user.id])
})

test('messages: update tags and payload, delete', async () => {
  const r = await room()
  const { message } = await i.createMessage({ ...of(r), ...text('first') })
  const { message: changed } = await i.updateMessage({ id: message.id, tags: { fid: 'ext-1' }, payload: { text: 'second' } })
  assert.deepEqual([changed.payload, changed.tags], [{ text: 'second' }, { fid: 'ext-1' }])
  assert.equal(changed.createdAt, message.createdAt)
  const { message: acked } = await b.updateMessage({ id: message.id, tags: { mine: 'x' } })
  assert.deepEqual(acked.tags, { 'chat:fid': 'ext-1', mine: 'x' })
  await i.deleteMessage({ id: message.id })
  await rejects(i.getMessage({ id: message.id }), 'ResourceNotFound')
})

test('messages: getOrCreate finds by tags within a conversation', async () => {
  const [r, other] = await Promise.all([room(), room()])
  const fid = fresh('m')
  const make = (to, tags = { fid }, more = {}) => i.getOrCreateMessage({ ...of(to), ...text('once', { tags }), ...more }).then((x) => x.message)
  const first = await make(r)
  assert.equal((await make(r)).id, first.id)
  assert.notEqual((await make(other)).id, first.id)
  const twins = await Promise.all(Array.from({ length: 20 }, () => make(r, { fid: `${fid}x` })))
  assert.equal(new Set(twins.map((t) => t.id)).size, 1)
  const { messages } = await b.listMessages({ conversationId: r.conversationId })
  assert.equal(messages.length, 2)
  const { events } = await b.listEvents({ conversationId: r.conversationId })
  assert.equal(events.length, 2)
})

test('messages: lists filter by tag and date, and page', async () => {
  const r = await room()
  const made = []
  for (let n = 0; n < 23; n++) made.push((await i.createMessage({ ...of(r), ...text(`m${n}`, { tags: n % 10 ? {} : { fid: fresh('tenth') } }) })).message)
  const { items, sizes } = await collect((a) => b.listMessages(a), 'messages', { conversationId: r.conversationId })
  assert.deepEqual(items.map((m) => m.id), made.map((m) => m.id).reverse())
  assert.deepEqual(sizes, [20, 3])
  const { fid } = made[10].tags
  assert.deepEqual((await i.listMessages({ conversationId: r.conversationId, tags: { fid } })).messages.map((m) => m.id), [made[10].id])
  assert.deepEqual((await b.listMessages({ tags: { 'chat:fid': fid } })).messages.map((m) => m.id), [made[10].id])
  const from = made[20].createdAt
  const late = await b.listMessages({ conversationId: r.conversationId, afterDate: from })
  assert.deepEqual(late.messages.map((m) => m.id), made.slice(20).map((m) => m.id).reverse())
  const early = await collect((a) => b.listMessages(a), 'messages', { conversationId: r.conversationId, beforeDate: from })
  assert.equal(early.items.length, 21)
})

test('messages: without a conversation the newest of the bot are listed', async () => {
  const r = await room()
  const { message } = await i.createMessage({ ...of(r), ...text('newest') })
  assert.equal((await b.listMessages({})).messages[0].id, message.id)
  assert.equal((await i.listMessages({})).messages[0].id, message.id)
})

test('messages: initializeIncomingMessage makes user, conversation and message in one call', async () => {
  const [fid, cid, mid] = [fresh('u'), fresh('c'), fresh('m')]
  const ask = () =>
    i.initializeIncomingMessage({
      user: { tags: { fid }, discriminateByTags: ['fid'] },
      conversation: { channel: 'channel', tags: { fid: cid }, discriminateByTags: ['fid'] },
      message: { type: 'text', payload: { text: 'hi' }, tags: { fid: mid }, discriminateByTags: ['fid'] },
    })
  const first = await ask()
  const again = await ask()
  assert.equal(again.user.id, first.user.id)
  assert.equal(again.conversation.id, first.conversation.id)
  assert.equal(first.message.conversationId, first.conversation.id)
  const { messages } = await b.listMessages({ conversationId: first.conversation.id })
  assert.equal(messages[0].direction, 'incoming')
})

test('messages: every message of a user leaves an event for the bot, messages of the bot leave none', async () => {
  const r = await room()
  const { message } = await i.createMessage({ ...of(r), ...text('hi') })
  await b.createMessage({ conversationId: r.conversationId, userId: bot.id, ...text('hello') })
  const { events } = await b.listEvents({ conversationId: r.conversationId })
  assert.equal(events.length, 1)
  const [event] = events
  assert.deepEqual([event.type, event.messageId, event.userId, event.conversationId], ['message_created', message.id, r.userId, r.conversationId])
  assert.deepEqual(event.payload.conversation, (await b.getConversation({ id: r.conversationId })).conversation)
})

test('messages: createdAt strictly rises in a conversation', async () => {
  const r = await room()
  const made = await Promise.all(Array.from({ length: 40 }, (_, n) => i.createMessage({ ...of(r), ...text(`m${n}`) })))
  assert.equal(new Set(made.map((m) => m.message.createdAt)).size, 40)
})

// ── events ─────────────────────────────────────────────────────────────────────

test('events: of the integration carry its alias for the bot, and none for itself', async () => {
  const r = await room()
  const payload = { userId: r.userId, conversationId: r.conversationId, payload: { x: 1 } }
  const { event } = await i.createEvent({ type: 'custom', payload, ...of(r) })
  assert.equal(event.type, 'custom')
  assert.deepEqual((await i.getEvent({ id: event.id })).event.type, 'custom')
  const seen = (await b.getEvent({ id: event.id })).event
  assert.equal(seen.type, 'chat:custom')
  assert.deepEqual(seen.payload, payload)
  const { events } = await b.listEvents({ type: 'chat:custom', conversationId: r.conversationId })
  assert.deepEqual(events.map((e) => e.id), [event.id])
})

test('events: the bot makes its own, and lists by type, status, user, message and conversation', async () => {
  const r = await room()
  const { message } = await i.createMessage({ ...of(r), ...text('hi') })
  const made = []
  for (let n = 0; n < 22; n++) {
    made.unshift((await b.createEvent({ type: 'tick', payload: { n }, conversationId: r.conversationId, userId: r.userId, messageId: message.id })).event)
  }
  const { items, sizes } = await collect((a) => b.listEvents(a), 'events', { type: 'tick', conversationId: r.conversationId })
  assert.deepEqual(items.map((e) => e.id), made.map((e) => e.id))
  assert.deepEqual(sizes, [20, 2])
  for (const by of [{ userId: r.userId }, { messageId: message.id }, { conversationId: r.conversationId }]) {
    const found = await collect((a) => b.listEvents(a), 'events', { type: 'tick', ...by })
    assert.equal(found.items.length, 22)
  }
  const pending = await collect((a) => b.listEvents(a), 'events', { conversationId: r.conversationId, status: 'pending' })
  assert.equal(pending.items.length, 23)
  assert.equal((await b.listEvents({ conversationId: r.conversationId, status: 'processed' })).events.length, 0)
})

test('events: without a conversation they reach the bot too', async () => {
  const { event } = await b.createEvent({ type: 'background', payload: {} })
  assert.equal((await b.getEvent({ id: event.id })).event.conversationId, undefined)
})

test('events: unknown references are refused', async () => {
  await rejects(b.createEvent({ type: 'x', payload: {}, conversationId: nowhere }), 'ReferenceNotFound')
  await rejects(b.createEvent({ type: 'x', payload: {}, userId: nobody }), 'ReferenceNotFound')
  await rejects(b.createEvent({ type: 'x', payload: {}, conversationId: 'not-an-id-at-all-but-long-enough' }), 'InvalidPayload', /^The provided UUID is invalid/)
})

// ── states ─────────────────────────────────────────────────────────────────────

for (const type of ['conversation', 'user', 'bot']) {
  test(`states: of a ${type} are set, read, patched, got or set, and removed`, async () => {
    const r = await room()
    const id = { conversation: r.conversationId, user: r.userId, bot: bot.id }[type]
    const key = { type, id, name: fresh('s').replaceAll('-', '') }
    await rejects(b.getState(key), 'ResourceNotFound')
    const { state: first, meta } = await b.getOrSetState({ ...key, payload: { n: 1 } })
    assert.deepEqual([first.payload, first.name, first.type, first.botId, meta.cached], [{ n: 1 }, key.name, type, bot.id, false])
    assert.deepEqual((await b.getOrSetState({ ...key, payload: { n: 9 } })).state.payload, { n: 1 })
    const { state: second } = await b.setState({ ...key, payload: { n: 2, deep: { a: 1, b: 2 } } })
    assert.equal(second.id, first.id)
    assert.deepEqual((await b.getState(key)).state.payload, { n: 2, deep: { a: 1, b: 2 } })
    const { state: patched } = await b.patchState({ ...key, payload: { extra: [1] } })
    assert.deepEqual([patched.payload.n, patched.payload.extra], [2, [1]])
    await b.setState({ ...key, payload: null })
    await rejects(b.getState(key), 'ResourceNotFound')
  })
}

test('states: bot and integration have spaces of their own', async () => {
  const r = await room()
  const key = { type: 'conversation', id: r.conversationId, name: 'shared' }
  await b.setState({ ...key, payload: { of: 'bot' } })
  await i.setState({ ...key, payload: { of: 'integration' } }).catch(() => {})
  assert.deepEqual((await b.getState(key)).state.payload, { of: 'bot' })
})

test('states: twenty twins of getOrSetState agree', async () => {
  const r = await room()
  const key = { type: 'conversation', id: r.conversationId, name: 'twin' }
  const all = await Promise.all(Array.from({ length: 20 }, (_, n) => b.getOrSetState({ ...key, payload: { n } })))
  assert.equal(new Set(all.map((s) => JSON.stringify(s.state.payload))).size, 1)
})

test('states: of things that do not exist are refused', async () => {
  await assert.rejects(b.setState({ type: 'conversation', id: nowhere, name: 'x', payload: {} }))
  await assert.rejects(b.getState({ type: 'user', id: nobody, name: 'x' }))
})

// ── actions ────────────────────────────────────────────────────────────────────

test('actions: chat:sendEvent reaches listeners', async () => {
  const t = await talk(bot.chatUrl)
  const { output } = await b.callAction({ type: 'chat:sendEvent', input: { conversationId: t.id, payload: { n: 1 } } })
  assert.deepEqual(output, {})
  const { data } = await t.signals.wait((s) => s.type === 'event_created')
  assert.deepEqual([data.payload, data.isBot], [{ n: 1 }, true])
  await t.close()
})

test('actions: chat:publishMessageStream is called with its published input', async () => {
  const t = await talk(bot.chatUrl)
  const delta = (sequence, delta) => ({ type: 'delta', streamId: 's1', sequence, delta, createdAt: new Date().toISOString() })
  for (let n = 0; n < 3; n++) {
    await b.callAction({ type: 'chat:publishMessageStream', input: { conversationId: t.id, signal: delta(n, `part ${n} `) } })
  }
  // This client is older than the signals; it hands them over as unknown.
  await t.signals.wait((s) => s.type === 'unknown' && /message_stream_delta/.test(s.data), 'stream delta')
  await b.createMessage({ conversationId: t.id, userId: bot.id, ...text('part 0 part 1 part 2', { payload: { text: 'whole', metadata: { streamId: 's1' } } }) })
  await t.signals.wait(fromBot)
  await t.close()
})

test('actions: unknown ones and wrong input are refused', async () => {
  await assert.rejects(b.callAction({ type: 'chat:nope', input: {} }))
  await assert.rejects(b.callAction({ type: 'nope:sendEvent', input: {} }))
  await rejects(b.callAction({ type: 'chat:sendEvent', input: {} }), 'InvalidPayload')
  await assert.rejects(b.callAction({ type: 'chat:sendEvent', input: { conversationId: nowhere, payload: {} } }))
})

// ── the bot's message reaches the chat user ────────────────────────────────────

test('a message that the bot starts with reaches the listener', async () => {
  const t = await talk(bot.chatUrl)
  const { message } = await b.createMessage({ conversationId: t.id, userId: bot.id, ...text('proactive') })
  const { data } = await t.signals.wait(fromBot)
  assert.deepEqual([data.id, data.createdAt, data.payload], [message.id, message.createdAt, { type: 'text', text: 'proactive' }])
  await t.close()
})

test('a chat user, conversation and message have their tags in the view of bot and integration', async () => {
  const [fid, cid] = [fresh('fid'), fresh('cid')]
  const client = await chat.Client.connect({ apiUrl: bot.chatUrl, userId: fid, name: 'x' })
  await client.updateUser({ profile: 'some profile' })
  await client.createConversation({ id: cid })
  const { users } = await b.listUsers({ tags: { 'chat:fid': fid } })
  assert.deepEqual(users[0].tags, { 'chat:fid': fid, 'chat:profile': 'some profile' })
  const { conversations } = await i.listConversations({ tags: { fid: cid } })
  assert.deepEqual(conversations[0].tags, { fid: cid, owner: users[0].id })
})

// ── what one sees of another ───────────────────────────────────────────────────

test('nothing of one bot is to be had through another', async () => {
  const r = await room({ fid: fresh('secret') })
  const { message } = await i.createMessage({ ...of(r), ...text('secret') })
  const { events } = await b.listEvents({ conversationId: r.conversationId })
  await b.setState({ type: 'conversation', id: r.conversationId, name: 'secret', payload: { x: 1 } })
  const other = await makeBot()
  for (const c of [other.client, other.integration]) {
    const found = [
      () => c.getUser({ id: r.userId }),
      () => c.updateUser({ id: r.userId, name: 'x' }),
      () => c.deleteUser({ id: r.userId }),
      () => c.getConversation({ id: r.conversationId }),
      () => c.updateConversation({ id: r.conversationId, tags: {} }),
      () => c.deleteConversation({ id: r.conversationId }),
      () => c.listParticipants({ id: r.conversationId }),
      () => c.addParticipant({ id: r.conversationId, userId: r.userId }),
      () => c.getParticipant({ id: r.conversationId, userId: r.userId }),
      () => c.removeParticipant({ id: r.conversationId, userId: r.userId }),
      () => c.getMessage({ id: message.id }),
      () => c.updateMessage({ id: message.id, tags: {} }),
      () => c.deleteMessage({ id: message.id }),
      () => c.getEvent({ id: events[0].id }),
      () => c.getState({ type: 'conversation', id: r.conversationId, name: 'secret' }),
    ]
    for (const [n, work] of found.entries()) await rejects(work(), 'ResourceNotFound').catch((e) => assert.fail(`${n}: ${e.message}`))
    await assert.rejects(c.createMessage({ ...of(r), ...text('x') }))
    const empty = async (work) => assert.deepEqual(Object.values(await work)[0], [])
    await empty(c.listMessages({}))
    await empty(c.listConversations({}))
    await empty(c.listUsers({}))
    await empty(c.listEvents({}))
  }
  assert.equal((await b.getMessage({ id: message.id })).message.id, message.id)
})

test('an integration that is not installed is Forbidden', async () => {
  const stranger = asIntegration(bot.id, 'intver_01ARZ3NDEKTSV4RRFFQ69G5FAV')
  await rejects(stranger.listMessages({}), 'Forbidden')
})

test('without a bot, with an unknown bot, without a token', async () => {
  await assert.rejects(asBot(undefined).listMessages({}))
  await assert.rejects(asBot('bot_01ARZ3NDEKTSV4RRFFQ69G5FAV').listMessages({}))
  for (const token of ['', 'bp_pat_wrong', 'Bearer']) await rejects(asBot(bot.id, { token }).listMessages({}), 'Unauthorized')
})

test('a removed user, conversation or participant ends what hangs on it', async () => {
  const r = await room({ fid: fresh('gone') })
  await i.createMessage({ ...of(r), ...text('x') })
  await b.setState({ type: 'conversation', id: r.conversationId, name: 'gone', payload: {} })
  await i.deleteConversation({ id: r.conversationId })
  await rejects(b.getState({ type: 'conversation', id: r.conversationId, name: 'gone' }), 'ResourceNotFound')
  await rejects(b.listParticipants({ id: r.conversationId }), 'ResourceNotFound')
  await rejects(i.createMessage({ ...of(r), ...text('x') }), 'ReferenceNotFound')
  await until(async () => !(await b.listMessages({})).messages.some((m) => m.conversationId === r.conversationId), 'messages gone')
  assert.equal((await b.getUser({ id: r.userId })).user.id, r.userId)
})

// ── planned operations ─────────────────────────────────────────────────────────

test('operations that are planned or refused answer a typed error', async () => {
  const later = operations.filter((o) => ['runtime', 'files', 'tables'].includes(o.family) && o.state !== 'done')
  assert.ok(later.length > 0)
  const input = { id: nowhere, key: 'x', table: 'x', type: 'conversation', name: 'x', payload: {}, tags: {}, expiry: 1, messages: [], status: 'pending', input: {} }
  for (const o of later) {
    const e = await b[o.name]({ ...input }).then(() => null, (e) => e)
    assert.ok(e?.isApiError && e.type !== 'Internal' && e.code >= 400, `${o.name}: ${e}`)
  }
})
