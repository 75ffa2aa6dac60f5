// Users and user keys of the Chat API, with the official chat client.
import assert from 'node:assert/strict'
import { createHmac } from 'node:crypto'
import { chat, chatUrl, env, fresh, makeBot, raw, rejects, test } from '../lib/parley.mjs'

const part = (value) => Buffer.from(JSON.stringify(value)).toString('base64url')

// token makes a JWT by hand, so that a case can make a wrong one.
function token(claims, key, { alg = 'HS256' } = {}) {
  const head = `${part({ alg, typ: 'JWT' })}.${part(claims)}`
  const signature = alg === 'HS256' ? createHmac('sha256', key).update(head).digest('base64url') : ''
  return `${head}.${signature}`
}

const now = () => Math.floor(Date.now() / 1000)
const own = env.PARLEY_CHAT_ENCRYPTION_KEY
const anonymous = () => new chat.Client({ apiUrl: chatUrl })

test('connect creates a user and hands out a key', async () => {
  const client = await chat.Client.connect({ apiUrl: chatUrl })
  assert.match(client.user.id, /^user_[0-9A-Z]{26}$/)
  assert.equal(client.user.key.split('.').length, 3)
  const { user } = await client.getUser({})
  const { key, ...created } = client.user
  assert.deepEqual(user, created)
})

test('connect with an own id shows that id everywhere', async () => {
  const userId = fresh('me')
  const client = await chat.Client.connect({ apiUrl: chatUrl, userId })
  assert.equal(client.user.id, userId)
  assert.equal((await client.getUser({})).user.id, userId)
  const { conversation } = await client.createConversation({ id: fresh('conv') })
  const { participants } = await client.listParticipants({ conversationId: conversation.id })
  assert.deepEqual(participants.map((p) => p.id), [userId])
})

test('connect with a user key finds the same user', async () => {
  const first = await chat.Client.connect({ apiUrl: chatUrl, userId: fresh('me') })
  const again = await chat.Client.connect({ apiUrl: chatUrl, userKey: first.user.key })
  assert.equal(again.user.id, first.user.id)
  assert.equal(again.user.createdAt, first.user.createdAt)
})

test('the key that parley env prints signs user keys of that installation', async () => {
  const userId = fresh('signed')
  const client = await chat.Client.connect({ apiUrl: chatUrl, userId, encryptionKey: own })
  assert.equal(client.user.id, userId)
})

test('an installation with an encryption key: own signatures are good, createUser is refused', async () => {
  const encryptionKey = fresh('secret')
  const bot = await makeBot({ configuration: { encryptionKey } })
  const userId = fresh('mine')
  const client = await chat.Client.connect({ apiUrl: bot.chatUrl, userId, encryptionKey })
  assert.equal(client.user.id, userId)
  const again = await chat.Client.connect({ apiUrl: bot.chatUrl, userId, encryptionKey })
  assert.equal(again.user.createdAt, client.user.createdAt)
  await rejects(chat.Client.connect({ apiUrl: bot.chatUrl }), 'Unauthorized')
  await rejects(chat.Client.connect({ apiUrl: bot.chatUrl, userId, encryptionKey: 'another' }), 'Unauthorized')
  await rejects(chat.Client.connect({ apiUrl: chatUrl, userKey: client.user.key }), 'Unauthorized')
})

test('createUser keeps name, picture and profile', async () => {
  const client = anonymous()
  const profile = JSON.stringify({ note: 'é'.repeat(400) })
  const given = { name: 'Zoë', pictureUrl: 'https://example.org/z.png', profile }
  const { user, key } = await client.createUser({ id: fresh('named'), ...given })
  const { id, createdAt, updatedAt, ...rest } = user
  assert.deepEqual(rest, given)
  assert.deepEqual((await client.getUser({ 'x-user-key': key })).user, user)
})

test('updateUser changes what it names and nothing else', async () => {
  const client = await chat.Client.connect({ apiUrl: chatUrl, userId: fresh('upd') })
  await client.updateUser({ name: 'A', pictureUrl: 'https://example.org/a.png' })
  const { user } = await client.updateUser({ name: 'B', profile: 'p' })
  assert.equal(user.name, 'B')
  assert.equal(user.profile, 'p')
  assert.equal(user.pictureUrl, 'https://example.org/a.png')
  assert.deepEqual((await client.getUser({})).user, user)
})

test('getOrCreateUser creates once and updates what it names', async () => {
  const client = anonymous()
  const id = fresh('goc')
  const key = token({ id, iat: now() }, own)
  const first = await client.getOrCreateUser({ 'x-user-key': key, name: 'First' })
  const second = await client.getOrCreateUser({ 'x-user-key': key, profile: 'second' })
  assert.equal(first.user.id, id)
  assert.equal(second.user.createdAt, first.user.createdAt)
  assert.equal(second.user.name, 'First')
  assert.equal(second.user.profile, 'second')
})

test('twenty twins of getOrCreateUser make one user', async () => {
  const client = anonymous()
  const key = token({ id: fresh('twin') }, own)
  const made = await Promise.all(Array.from({ length: 20 }, () => client.getOrCreateUser({ 'x-user-key': key })))
  assert.equal(new Set(made.map((m) => m.user.createdAt)).size, 1)
})

test('getOrCreateUser with the key of createUser finds that user', async () => {
  const client = anonymous()
  const { user, key } = await client.createUser({})
  assert.equal((await client.getOrCreateUser({ 'x-user-key': key })).user.id, user.id)
})

test('an id taken is AlreadyExists', async () => {
  const client = anonymous()
  const id = fresh('taken')
  await client.createUser({ id })
  await rejects(client.createUser({ id }), 'AlreadyExists')
})

test('an id of the wrong form is InvalidPayload', async () => {
  const client = anonymous()
  for (const id of ['no+plus', 'no space', 'é', 'x'.repeat(71), '']) {
    await rejects(client.createUser({ id }), 'InvalidPayload')
  }
  for (const id of ['no+plus', 'x'.repeat(71)]) {
    await rejects(client.getOrCreateUser({ 'x-user-key': token({ id }, own) }), 'InvalidPayload')
  }
  for (const id of [`${fresh('a')}/b`, `${fresh('a')}\\b`, `${fresh('a')}_B-9`, 'x'.repeat(50) + fresh('').slice(0, 20)]) {
    assert.equal((await client.createUser({ id })).user.id, id)
  }
})

test('over-long members are refused and change nothing', async () => {
  const client = await chat.Client.connect({ apiUrl: chatUrl, userId: fresh('long') })
  await rejects(client.updateUser({ profile: 'x'.repeat(1001) }), 'InvalidPayload', /profile/)
  await rejects(client.updateUser({ name: 'x'.repeat(201) }), 'InvalidPayload', /name/)
  const { user } = await client.getUser({})
  assert.equal(user.profile, undefined)
  assert.equal(user.name, undefined)
})

test('a deleted user is gone and its key opens nothing', async () => {
  const client = await chat.Client.connect({ apiUrl: chatUrl })
  const { conversation } = await client.createConversation({})
  await client.deleteUser({})
  await assert.rejects(client.getUser({}))
  await assert.rejects(client.getConversation({ id: conversation.id }))
})

test('wrong keys are Unauthorized: absent, tampered, alg none, expired, early, foreign, without id', async () => {
  const client = anonymous()
  const { user, key } = await client.createUser({ id: fresh('key') })
  const elsewhere = await makeBot()
  const foreign = (await new chat.Client({ apiUrl: elsewhere.chatUrl }).createUser({ id: user.id })).key
  const [head, claims, signature] = key.split('.')
  const flipped = signature.slice(0, 3) + (signature[3] === 'A' ? 'B' : 'A') + signature.slice(4)
  const wrong = {
    empty: '',
    text: 'hello',
    'other claims': `${head}.${part({ id: fresh('other') })}.${signature}`,
    'flipped signature': `${head}.${claims}.${flipped}`,
    'no signature': `${head}.${claims}.`,
    'alg none': token({ id: user.id }, '', { alg: 'none' }),
    'alg None': token({ id: user.id }, '', { alg: 'None' }),
    'alg RS256': token({ id: user.id }, own, { alg: 'RS256' }),
    'empty secret': token({ id: user.id }, ''),
    'another secret': token({ id: user.id }, 'secret'),
    expired: token({ id: user.id, iat: now() - 120, exp: now() - 60 }, own),
    'not yet': token({ id: user.id, nbf: now() + 600 }, own),
    'no id': token({ sub: user.id }, own),
    'id not a string': token({ id: 7 }, own),
    'over-long': token({ id: user.id, fill: 'x'.repeat(8000) }, own),
    'foreign installation': foreign,
  }
  for (const [what, userKey] of Object.entries(wrong)) {
    await rejects(client.getUser({ 'x-user-key': userKey }), 'Unauthorized').catch((e) => assert.fail(`${what}: ${e.message}`))
  }
  assert.equal((await raw('GET', '/users/me', { base: chatUrl, token: null })).status, 401)
  assert.equal((await client.getUser({ 'x-user-key': token({ id: user.id, exp: now() + 60 }, own) })).user.id, user.id)
})

test('a good signature for a user that does not exist opens nothing but getOrCreateUser', async () => {
  const client = anonymous()
  const key = token({ id: fresh('ghost') }, own)
  await assert.rejects(client.getUser({ 'x-user-key': key }))
  await assert.rejects(client.createConversation({ 'x-user-key': key }))
  await client.getOrCreateUser({ 'x-user-key': key })
  await client.createConversation({ 'x-user-key': key })
})

test('an unknown door is not found', async () => {
  const base = `${env.BP_API_URL}/00000000-0000-4000-8000-000000000000`
  const answer = await raw('POST', '/users', { base, token: null, body: {} })
  assert.equal(answer.status, 404)
  assert.equal(answer.body.type, 'ResourceNotFound')
  assert.match(answer.body.message, /\[Webhook Handler\]/)
  await assert.rejects(chat.Client.connect({ apiUrl: base }))
})

test('hello answers as text with and without a slash', async () => {
  for (const path of ['/hello', '/hello/']) {
    const answer = await raw('GET', path, { base: chatUrl, token: null })
    assert.equal(answer.status, 200)
    assert.match(answer.headers['content-type'], /^text\/plain/)
  }
})

test('the door serves its own OpenAPI document', async () => {
  const { status, body } = await raw('GET', '/openapi.json', { base: chatUrl, token: null })
  assert.equal(status, 200)
  assert.match(body.openapi, /^3\./)
  const ids = Object.values(body.paths).flatMap((p) => Object.values(p).map((o) => o.operationId))
  assert.equal(ids.filter(Boolean).length, 21)
})
