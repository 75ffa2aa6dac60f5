// Bad input: every refused request has its typed error, names what is wrong, and changes nothing.
import assert from 'node:assert/strict'
import { before } from 'node:test'
import { chatUrl, env, fresh, makeBot, raw, rejects, talk, test } from '../lib/parley.mjs'

let bot, b, i, room
before(async () => {
  bot = await makeBot({ url: 'http://127.0.0.1:1' })
  b = bot.client
  i = bot.integration
  const { user } = await i.createUser({ tags: {} })
  const { conversation } = await i.createConversation({ channel: 'channel', tags: {} })
  room = { userId: user.id, conversationId: conversation.id }
})

const headers = () => ({ 'x-bot-id': bot.id, 'x-integration-id': bot.integrationId })
const post = (path, body, more = {}) => raw('POST', path, { body, headers: { ...headers(), ...more } })
const get = (path, more = {}) => raw('GET', path, { headers: { ...headers(), ...more } })
const good = () => ({ ...room, type: 'text', payload: { text: 'x' }, tags: {} })
const is = (answer, type, message) => {
  assert.equal(answer.body?.type, type, `${answer.status} ${answer.text}`)
  if (message) assert.match(answer.body.message, message)
}
const count = async () => (await b.listMessages({ conversationId: room.conversationId })).messages.length

test('bodies that are not JSON', async () => {
  for (const body of ['{', '{"a":', 'hello', '{"a":1}}', "{'a':1}", '{"a":1,}', '\u0000', '[1', '"', 'NaN']) {
    is(await post('/v1/chat/messages', body), 'InvalidPayload')
  }
  assert.equal(await count(), 0)
})

test('JSON that is not an object', async () => {
  for (const body of ['[]', '"x"', '7', 'null', 'true']) is(await post('/v1/chat/messages', body), 'InvalidPayload')
})

test('members that are missing, unknown, or of the wrong type are named', async () => {
  const cases = [
    [{ ...good(), tags: undefined }, /tags/],
    [{ ...good(), payload: undefined }, /payload/],
    [{ ...good(), type: undefined }, /type/],
    [{ ...good(), userId: undefined }, /userId/],
    [{ ...good(), conversationId: undefined }, /conversationId/],
    [{ ...good(), extra: 1 }, /extra/],
    [{ ...good(), tags: [] }, /tags/],
    [{ ...good(), tags: { fid: 7 } }, /tags/],
    [{ ...good(), payload: 'x' }, /payload/],
    [{ ...good(), type: 7 }, /type/],
    [{ ...good(), type: 'x'.repeat(201) }, /type/],
    [{ ...good(), userId: null }, /userId/],
    [{ ...good(), origin: 'other' }, /origin/],
    [{ ...good(), tags: { fid: 'x'.repeat(501) } }, /fid|tags/],
  ]
  for (const [body, message] of cases) is(await post('/v1/chat/messages', body), 'InvalidPayload', message)
  assert.equal(await count(), 0)
})

test('a repeated member, a lone surrogate and bytes that are not UTF-8 are refused or kept, never an error of the server', async () => {
  const text = JSON.stringify(good())
  const odd = [text.replace('{', '{"type":"text",'), text.replace('"x"', '"\\ud800"'), Buffer.from(text.replace('"x"', '"\xff"'), 'latin1')]
  for (const body of odd) assert.ok([201, 400].includes((await post('/v1/chat/messages', body)).status))
})

test('ids in a body: not an id, unknown, of another bot', async () => {
  const other = await makeBot()
  const { user } = await other.integration.createUser({ tags: {} })
  const unknown = { conversationId: 'conv_01ARZ3NDEKTSV4RRFFQ69G5FAV', userId: 'user_01ARZ3NDEKTSV4RRFFQ69G5FAV' }
  const uuid = '7caa8576-f1f5-4108-9011-2280af3af42c'
  const send = (more) => i.createMessage({ ...good(), ...more })
  const says = async (more, name, message) => assert.equal((await rejects(send(more), name)).message, message)
  await says({ conversationId: unknown.conversationId }, 'ReferenceNotFound', `Conversation "${unknown.conversationId}" doesn't exist for bot "${bot.id}"`)
  await says({ conversationId: uuid }, 'ReferenceNotFound', `Conversation "${uuid}" doesn't exist for bot "${bot.id}"`)
  await says({ userId: unknown.userId }, 'ReferenceNotFound', `User "${unknown.userId}" doesn't exist for bot "${bot.id}"`)
  await says({ userId: uuid }, 'ReferenceNotFound', `User "${uuid}" doesn't exist for bot "${bot.id}"`)
  await says({ userId: user.id }, 'ReferenceNotFound', `User "${user.id}" doesn't exist for bot "${bot.id}"`)
  for (const id of ['your user id, which is long enough', 'x'.repeat(30), 'user_01arz3ndektsv4rrffq69g5fav', '7caa8576-f1f5-4108-9011-2280af3af42']) {
    await rejects(send({ userId: id }), 'InvalidPayload', /^The provided UUID is invalid/)
    await rejects(send({ conversationId: id }), 'InvalidPayload', /^The provided UUID is invalid/)
  }
  for (const id of ['short', 'x'.repeat(37), '']) await rejects(send({ userId: id }), 'InvalidPayload')
  assert.equal(await count(), 0)
})

test('ids in a path: unknown, foreign and malformed are one and the same', async () => {
  const other = await makeBot()
  const { user } = await other.integration.createUser({ tags: {} })
  const seen = new Set()
  for (const id of [user.id, 'user_01ARZ3NDEKTSV4RRFFQ69G5FAV', 'x', 'x'.repeat(300), '%00', '..%2f..%2f', "'; DROP TABLE users; --", '%F0%9F%99%82']) {
    const answer = await get(`/v1/chat/users/${encodeURI(id).replaceAll('%25', '%')}`)
    assert.equal(answer.status, 404, `${id}: ${answer.text}`)
    seen.add(answer.body.type)
  }
  assert.deepEqual([...seen], ['ResourceNotFound'])
})

test('ids in a query', async () => {
  is(await get('/v1/chat/messages?conversationId=not-an-id'), 'InvalidPayload', /^The provided UUID is invalid/)
  is(await get('/v1/chat/messages?conversationId=conv_01ARZ3NDEKTSV4RRFFQ69G5FAV'), 'ReferenceNotFound')
})

test('queries that are not well formed', async () => {
  for (const query of ['nextToken=%%%', 'nextToken=AAAA', 'afterDate=yesterday', 'beforeDate=2026-13-45T00:00:00Z', 'tags.=x']) {
    const answer = await get(`/v1/chat/messages?${query}`)
    assert.ok(['InvalidPayload', 'InvalidQuery'].includes(answer.body?.type), `${query}: ${answer.status} ${answer.text}`)
  }
  for (const query of ['sortField=name', 'sortDirection=up']) {
    const answer = await get(`/v1/chat/conversations?${query}`)
    assert.ok(['InvalidPayload', 'InvalidQuery'].includes(answer.body?.type), `${query}: ${answer.status}`)
  }
})

test('tags in both spellings, escaped or not, and repeated keys', async () => {
  const fid = `${fresh('q')} ü&=`
  const { user } = await i.createUser({ tags: { fid } })
  const value = encodeURIComponent(fid)
  const asTheBot = { 'x-integration-id': null }
  for (const [query, more] of [
    [`tags.fid=${value}`, {}],
    [`tags[fid]=${value}`, {}],
    [`tags%5Bfid%5D=${value}`, {}],
    [`tags.chat%3Afid=${value}`, asTheBot],
    [`tags.chat:fid=${value}`, asTheBot],
    [`tags[chat:fid]=${value}`, asTheBot],
    [`tags%5Bchat%3Afid%5D=${value}`, asTheBot],
  ]) {
    const answer = await get(`/v1/chat/users?${query}`, more)
    assert.deepEqual(answer.body.users?.map((u) => u.id), [user.id], query)
  }
  const ids = [room.userId, user.id].map((u) => `participantIds=${u}`).join('&')
  assert.equal((await get(`/v1/chat/conversations?${ids}`)).status, 200)
})

test('content types: none counts as {} where nothing is required, else 415 names the header', async () => {
  const none = { 'content-type': null }
  const answer = await post('/v1/chat/messages', JSON.stringify(good()), none)
  is(answer, 'UnsupportedMediaType', /content-type/i)
  is(await post('/v1/chat/messages', JSON.stringify(good()), { 'content-type': 'text/plain' }), 'UnsupportedMediaType', /content-type/i)
  for (const type of ['application/json; charset=utf-8', 'Application/JSON', 'application/json;charset=UTF-8']) {
    assert.equal((await post('/v1/chat/messages', JSON.stringify(good()), { 'content-type': type })).status, 201)
  }
  assert.equal((await raw('POST', '/users', { base: chatUrl, token: null })).status, 201)
})

test('bodies over the limit are PayloadTooLarge, at once and whole', async () => {
  const before = await count()
  const huge = { ...good(), payload: { text: 'x'.repeat(2 << 20) } }
  const answer = await post('/v1/chat/messages', huge).catch((e) => e)
  if (!(answer instanceof Error)) is(answer, 'PayloadTooLarge')
  else assert.match(answer.code, /EPIPE|ECONNRESET/)
  const large = { ...good(), payload: { text: 'x'.repeat(129 << 10) } }
  const second = await post('/v1/chat/messages', large)
  assert.equal(second.status, 413)
  assert.equal(await count(), before)
})

test('JSON as deep as a well is refused', async () => {
  const deep = (n) => '['.repeat(n) + ']'.repeat(n)
  for (const n of [10_000, 200_000]) {
    const body = JSON.stringify(good()).replace('"text":"x"', `"text":${deep(n)}`)
    is(await post('/v1/chat/messages', body), 'InvalidPayload')
  }
})

test('unknown paths are not found, wrong methods are MethodNotFound', async () => {
  for (const path of ['/v1/chat/nope', '/v1', '/v2/chat/messages', '/v1/admin/nope', '/nope', '/v1/chat/messages/a/b/c']) {
    is(await get(path), 'ResourceNotFound')
  }
  is(await raw('PATCH', '/v1/chat/messages', { headers: headers(), body: {} }), 'MethodNotFound')
  is(await raw('DELETE', '/v1/chat/messages', { headers: headers() }), 'MethodNotFound')
  is(await raw('PUT', '/messages', { base: chatUrl, token: null, body: {} }), 'MethodNotFound')
})

test('paths that try to climb are not found', async () => {
  for (const path of ['/v1/chat/../admin/bots', '/v1//chat/messages', '/v1/chat/users/..%2fmessages', '/%2e%2e/%2e%2e/etc/passwd', '/v1/chat/users/%2e%2e']) {
    const answer = await get(path)
    assert.ok(answer.status === 404 || answer.status === 401, `${path}: ${answer.status}`)
  }
})

test('no token, wrong scheme, wrong token', async () => {
  for (const authorization of [null, 'Basic eDp5', 'Bearer', 'Bearer ', `Token ${env.BP_TOKEN}`, `Bearer ${env.BP_TOKEN}x`, `Bearer ${env.BP_TOKEN} x`]) {
    is(await get('/v1/chat/messages', { authorization }), 'Unauthorized')
  }
  assert.equal((await get('/v1/chat/messages', { authorization: `bearer ${env.BP_TOKEN}` })).status, 200)
})

test('a missing bot header is named', async () => {
  const answer = await raw('GET', '/v1/chat/messages', { headers: { 'x-integration-id': bot.integrationId } })
  assert.ok(answer.status >= 400 && answer.status < 500)
  assert.match(answer.body.message, /x-bot-id/)
})

test('tags: keys and values keep their limits, empty removes', async () => {
  const make = (tags) => b.createUser({ tags })
  for (const key of ['Upper', 'x', '1a', 'with space', 'dot.ted', 'x'.repeat(101), 'other:tag', '']) {
    await assert.rejects(make({ [key]: 'v' }), (e) => ['InvalidPayload', 'InvalidIdentifier'].includes(e.type) || assert.fail(`${key}: ${e.type}`))
  }
  const { user } = await make({ good: 'x'.repeat(500), other: 'y' })
  const { user: after } = await b.updateUser({ id: user.id, tags: { other: '' } })
  assert.deepEqual(Object.keys(after.tags), ['good'])
})

test('an Idempotency-Key gives the first answer again and doubles nothing', async () => {
  const key = fresh('key')
  const before = await count()
  const body = good()
  const first = await post('/v1/chat/messages', body, { 'idempotency-key': key })
  const again = await post('/v1/chat/messages', body, { 'idempotency-key': key })
  assert.equal(first.status, 201)
  assert.deepEqual([again.status, again.body], [first.status, first.body])
  assert.equal(await count(), before + 1)
  const twins = await Promise.all(Array.from({ length: 20 }, () => post('/v1/chat/messages', body, { 'idempotency-key': `${key}2` })))
  for (const t of twins) assert.ok(t.status === 201 || (t.status === 409 && t.body.type === 'ResourceLockedConflict'), t.text)
  assert.equal(new Set(twins.filter((t) => t.status === 201).map((t) => t.body.message.id)).size, 1)
  assert.equal(await count(), before + 2)
})

test('an Idempotency-Key of one caller is nothing to another', async () => {
  const key = fresh('key')
  const t = await talk(bot.chatUrl)
  const send = () =>
    raw('POST', '/messages', {
      base: bot.chatUrl,
      token: null,
      headers: { 'x-user-key': t.client.user.key, 'idempotency-key': key },
      body: { conversationId: t.id, payload: { type: 'text', text: 'once' } },
    })
  const mine = await post('/v1/chat/messages', good(), { 'idempotency-key': key })
  const [theirs, again] = [await send(), await send()]
  assert.notEqual(theirs.body.message.id, mine.body.message.id)
  assert.deepEqual(again.body, theirs.body)
  assert.equal((await t.client.listMessages({ conversationId: t.id })).messages.length, 1)
  await t.close()
})

test('a failed request may be repeated with its key', async () => {
  const key = fresh('key')
  const wrong = await post('/v1/chat/messages', { ...good(), extra: 1 }, { 'idempotency-key': key })
  assert.equal(wrong.status, 400)
  assert.equal((await post('/v1/chat/messages', good(), { 'idempotency-key': key })).status, 201)
})
