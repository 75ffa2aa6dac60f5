// What published guides tell people to do, done here as they say: the Botpress Cloud Integration Guide (a reader's own, for Node
// "or any other programming language"), the Chat API Introduction and the Introduction of the API. Their words stand above the case.
import assert from 'node:assert/strict'
import { createRequire } from 'node:module'
import { readFileSync } from 'node:fs'
import { after, before } from 'node:test'
import { startBot } from '../lib/bot.mjs'
import { admin, apiUrl, chat, chatUrl, env, fresh, fromBot, listen, makeBot, raw, talk, test, until } from '../lib/parley.mjs'
import { operations, statusOf } from '../lib/spec.mjs'

const require = createRequire(import.meta.url)
const axios = require('axios')
const request = require('request')
const jwt = require('jsonwebtoken')

let program
let bot
before(async () => {
  program = await startBot()
  bot = await makeBot({ url: program.url })
})
after(() => program?.stop())

// The text of the section "Full Request Code", as it is written.
const guide = readFileSync(new URL('../testdata/integration-guide.js', import.meta.url), 'utf8')

// run executes the guide's program with the packages that it uses, with the reader's values in the places it leaves open.
function run({ authorization, botId, integrationId, userId, conversationId }) {
  const values = [authorization, botId, integrationId, userId, conversationId]
  const text = guide.replace('https://api.botpress.cloud', apiUrl).replaceAll('"..."', () => JSON.stringify(values.shift()))
  assert.equal(values.length, 0)
  return new Promise((resolve) => {
    const printed = []
    const console = { log: (x) => printed.push(x), error: (e) => printed.push(e) }
    const res = { json: (answer) => resolve({ answer, printed }) }
    new Function('axios', 'request', 'res', 'console', text)(axios, request, res, console)
  })
}

const bearer = () => `Bearer ${env.BP_TOKEN}`

// The headers of "Getting conversationId and userId".
const found = (botId) => ({ accept: '*/*', 'content-type': 'application/json', authorization: bearer(), 'x-bot-id': botId })
const list = (headers, path = '/v1/chat/messages/', more = {}) => raw('GET', path, { token: null, headers, ...more })

// "Only copy the conversationId and userId from the JSON where the direction is incoming."
test('the integration guide: ids are found by listing messages, the program posts and reads the reply', async () => {
  const t = await talk(bot.chatUrl)
  await t.say('WHO R U?')
  await t.signals.wait(fromBot)
  const listed = await list(found(bot.id))
  const { userId, conversationId } = listed.body.messages.find((m) => m.direction === 'incoming')
  assert.deepEqual([userId, conversationId], [t.client.user.id, t.id])
  const { answer, printed } = await run({ authorization: bearer(), botId: bot.id, integrationId: bot.integrationId, userId, conversationId })
  assert.deepEqual(printed, ['Hey There!'])
  assert.deepEqual([answer.direction, answer.conversationId, answer.payload.text], ['outgoing', conversationId, 'You said: Hey There!'])
  await t.close()
})

// "Getting Started": Authorization, x-bot-id, x-integration-id. "Sample response": the newest message first, each with these members.
test('the integration guide: the sample response, with and without a slash and the integration', async () => {
  const t = await talk(bot.chatUrl)
  await t.say('one')
  await t.signals.wait(fromBot)
  const other = await talk(bot.chatUrl)
  await other.say('two')
  await other.signals.wait(fromBot)
  const listed = (await list(found(bot.id))).body
  const said = listed.messages.slice(0, 4).map((m) => [m.conversationId, m.direction, m.type, m.payload, m.tags])
  assert.deepEqual(said, [
    [other.id, 'outgoing', 'text', { text: 'You said: two' }, {}],
    [other.id, 'incoming', 'text', { text: 'two' }, {}],
    [t.id, 'outgoing', 'text', { text: 'You said: one' }, {}],
    [t.id, 'incoming', 'text', { text: 'one' }, {}],
  ])
  for (const member of ['id', 'createdAt', 'conversationId', 'payload', 'tags', 'userId', 'type', 'direction']) assert.ok(member in listed.messages[0], member)
  assert.match(listed.messages[0].createdAt, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/)
  const integration = { ...found(bot.id), 'x-integration-id': bot.integrationId }
  // The program sends its body with GET too.
  const body = JSON.stringify({ userId: t.client.user.id, conversationId: t.id, type: 'text', payload: { text: 'Hey There!' }, tags: {} })
  for (const answer of [await list(found(bot.id), '/v1/chat/messages'), await list(integration), await list(integration, undefined, { body })]) {
    assert.deepEqual([answer.status, answer.body], [200, listed])
  }
  await t.close()
  await other.close()
})

// "If you got this response"
test('the integration guide: a bot without messages lists none', async () => {
  const silent = await makeBot()
  const listed = await list(found(silent.id))
  assert.deepEqual(listed.body, { messages: [], meta: {} })
  assert.equal(listed.text, '{"messages":[],"meta":{}}')
})

// "Solving Errors", 1 and 2, with the alternative of 2.
test('the integration guide: its two errors, word for word', async () => {
  const t = await talk(bot.chatUrl)
  const values = { authorization: bearer(), botId: bot.id, integrationId: bot.integrationId, userId: t.client.user.id, conversationId: t.id }
  const fails = async (change) => {
    const { answer, printed } = await run({ ...values, ...change })
    assert.deepEqual(answer, { error: 'An error occurred' })
    const { status, data } = printed[0].response
    assert.equal(status, 400)
    assert.match(data.id, /^err_\d{13}x[0-9A-F]{8}$/)
    return [data.code, data.type, data.message]
  }
  const uuid = '7caa8576-f1f5-4108-9011-2280af3af42c'
  assert.deepEqual(await fails({ conversationId: uuid }), [400, 'ReferenceNotFound', `Conversation "${uuid}" doesn't exist for bot "${bot.id}"`])
  assert.deepEqual(await fails({ userId: uuid }), [400, 'ReferenceNotFound', `User "${uuid}" doesn't exist for bot "${bot.id}"`])
  for (const change of [{ userId: 'your_user_id' }, { conversationId: 'your_conversation_id' }, { userId: `x${uuid.slice(1)}` }]) {
    const [member, text] = Object.entries(change)[0]
    // The sentence of the guide, and then which one it is.
    assert.deepEqual(await fails(change), [400, 'InvalidPayload', `The provided UUID is invalid: ${member} "${text}"`])
  }
  await t.close()
})

// "setTimeout(() => { … }, 3000)": whoever asks with ?wait needs neither the pause nor the second request.
test('the integration guide: the reply comes with the answer to one who waits', async () => {
  const t = await talk(bot.chatUrl)
  const url = `${apiUrl}/v1/chat/messages/?wait=60`
  const body = JSON.stringify({ userId: t.client.user.id, conversationId: t.id, type: 'text', payload: { text: 'Hey There!' }, tags: {} })
  const headers = { 'Content-type': 'application/json', Authorization: bearer(), 'x-bot-id': bot.id, 'x-integration-id': bot.integrationId }
  const { status, data } = await axios.post(url, body, { headers })
  assert.deepEqual([status, data.message.payload.text, data.replies[0].payload.text, data.finished], [201, 'Hey There!', 'You said: Hey There!', true])
  assert.deepEqual((await list(found(bot.id))).body.messages.slice(0, 2), [data.replies[0], data.message])
  await t.close()
})

test('the Chat API introduction: hello, createUser, createConversation, createMessage, listMessages', async () => {
  const call = (method, path, { key, ...more } = {}) =>
    raw(method, path, { base: chatUrl, token: null, ...more, headers: key ? { 'x-user-key': key } : {} })
  assert.equal((await call('GET', '/hello')).status, 200)
  const { user, key } = (await call('POST', '/users', { body: {} })).body
  const { conversation } = (await call('POST', '/conversations', { key, body: {} })).body
  const payload = { type: 'text', text: 'hello bot' }
  const sent = await call('POST', '/messages', { key, body: { conversationId: conversation.id, payload } })
  assert.equal(sent.body.message.userId, user.id)
  const messages = await until(async () => {
    const answer = await call('GET', `/conversations/${conversation.id}/messages`, { key })
    return answer.body.messages.length === 2 && answer.body.messages
  }, 'reply')
  assert.notEqual(messages[0].userId, user.id)
  assert.deepEqual(messages[1], sent.body.message)
})

// "All requests sent to the Chat Integration's API are authenticated with a x-user-key header. … createUser … is the only
// operation not authenticated", hello apart.
test('the Chat API introduction: only hello and createUser do without a key', async () => {
  const call = (method, path, body) => raw(method, path, { base: chatUrl, token: null, body })
  assert.equal((await call('GET', '/hello')).status, 200)
  assert.equal((await call('POST', '/users', {})).status, 201)
  for (const { method, path, name } of operations.filter((o) => o.family === 'chat' && o.name !== 'createUser')) {
    const answer = await call(method, path.replaceAll(/{\w+}/g, 'x'), method === 'GET' ? undefined : {})
    assert.deepEqual([answer.status, answer.body.type], [401, 'Unauthorized'], name)
  }
})

// "This means you can't use the Chat API to fetch conversations that occur within other integrations … For that, check out the Runtime API."
test('the Chat API introduction: conversations of other integrations are not to be had', async () => {
  const both = await makeBot({ url: program.url })
  const { integration } = await admin().getPublicIntegration({ name: 'chat', version: 'latest' })
  const { bot: updated } = await admin().updateBot({ id: both.id, integrations: { other: { integrationId: integration.id, enabled: true, configuration: {} } } })
  const { client, id, close } = await talk(`${apiUrl}/${updated.integrations.other.webhookId}`)
  await client.createMessage({ conversationId: id, payload: { type: 'text', text: 'elsewhere' } })
  const mine = await talk(both.chatUrl)
  for (const path of [`/conversations/${id}`, `/conversations/${id}/messages`, `/conversations/${id}/listen`]) {
    const answer = await raw('GET', path, { base: both.chatUrl, token: null, headers: { 'x-user-key': mine.client.user.key } })
    assert.deepEqual([answer.status, answer.body.type], [404, 'ResourceNotFound'], path)
  }
  assert.equal((await both.client.getConversation({ id })).conversation.id, id)
  await close()
  await mine.close()
})

// "Manual authentication": "A user ID. This can be any valid string … An encryption key. This can be any valid string. … The x-user-key
// header is a JWT. Here's how to sign it using the jsonwebtoken NodeJS library". "If the signature is invalid, the request will be
// rejected with an unauthorized status code." "calling createUser will result in an error response … call getOrCreateUser instead."
test('the Chat API introduction: a key of one’s own making, where createUser is refused', async () => {
  for (const encryptionKey of [fresh('key'), 'short', 'ключ 🗝 with spaces']) {
    const manual = await makeBot({ configuration: { encryptionKey } })
    for (const id of [fresh('me'), 'ann@example.org', 'team/ann_B', '42']) {
      const key = jwt.sign({ id }, encryptionKey)
      const call = (method, path, body, headers = { 'x-user-key': key }) => raw(method, path, { base: manual.chatUrl, token: null, body, headers })
      assert.equal((await call('POST', '/users', { id }, {})).status, 401)
      assert.equal((await call('POST', '/users/get-or-create', {})).body.user.id, id)
      assert.equal((await call('GET', '/users/me')).body.user.id, id)
      for (const wrong of [key.slice(0, -2), jwt.sign({ id }, `${encryptionKey}x`)]) {
        const answer = await call('GET', '/users/me', undefined, { 'x-user-key': wrong })
        assert.deepEqual([answer.status, answer.body.type], [401, 'Unauthorized'])
      }
    }
  }
})

// "Handled manual authentication if you pass an encryption key and user ID. Uses an SSE client to listen to conversation events."
test('the Chat API introduction: the official client signs its keys and listens', async () => {
  const encryptionKey = fresh('key')
  const manual = await makeBot({ url: program.url, configuration: { encryptionKey } })
  const userId = fresh('me')
  const client = await chat.Client.connect({ apiUrl: manual.chatUrl, userId, encryptionKey })
  assert.deepEqual(jwt.verify(client.user.key, encryptionKey).id, userId)
  const { conversation } = await client.createConversation({})
  const signals = await listen(client, { id: conversation.id })
  await client.createMessage({ conversationId: conversation.id, payload: { type: 'text', text: 'hello bot' } })
  assert.equal((await signals.wait(fromBot)).data.payload.text, 'You said: hello bot')
  await signals.close()
})

test('the API introduction: twenty a page, nextToken goes on, the last page has none', async () => {
  const paged = await makeBot()
  for (let n = 0; n < 41; n++) await paged.integration.createConversation({ channel: 'channel', tags: {} })
  const headers = { 'x-bot-id': paged.id }
  const sizes = []
  let query = ''
  do {
    const { body } = await raw('GET', `/v1/chat/conversations${query}`, { headers })
    sizes.push(body.conversations.length)
    query = body.meta.nextToken === undefined ? '' : `?nextToken=${encodeURIComponent(body.meta.nextToken)}`
    if (!query) assert.deepEqual(body.meta, {})
  } while (query)
  assert.deepEqual(sizes, [20, 20, 1])
})

// "Errors": what the document says of each type.
const documented = {
  Unknown: [500, 'An unknown error occurred'],
  Internal: [500, 'An internal error occurred'],
  Unauthorized: [401, 'The request requires to be authenticated.'],
  Forbidden: [403, "The requested action can't be peform by this resource."],
  PayloadTooLarge: [413, 'The request payload is too large.'],
  InvalidPayload: [400, 'The request payload is invalid.'],
  UnsupportedMediaType: [415, 'The request is invalid because the content-type is not supported.'],
  MethodNotFound: [405, 'The requested method does not exist.'],
  ResourceNotFound: [404, 'The requested resource does not exist.'],
  InvalidJsonSchema: [400, 'The provided JSON schema is invalid.'],
  InvalidDataFormat: [400, "The provided data doesn't respect the provided JSON schema."],
  InvalidIdentifier: [
    400,
    'The provided identifier is not valid. An identifier must start with a lowercase letter, be between 2 and 100 characters long and use only alphanumeric characters.',
  ],
  RelationConflict: [
    409,
    "The resource is related with a different resource that the one referenced in the request. This is usually caused when providing two resource identifiers that aren't linked together.",
  ],
  ReferenceConstraint: [409, "The resource cannot be deleted because it's referenced by another resource"],
  ReferenceNotFound: [400, 'The provided resource reference is missing. This is usually caused when providing an invalid id inside the payload of a request.'],
  InvalidQuery: [400, 'The provided query is invalid. This is usually caused when providing an invalid parameter for querying a resource.'],
  Runtime: [400, 'An error happened during the execution of a runtime (bot or integration).'],
  AlreadyExists: [409, 'The record attempted to be created already exists.'],
  RateLimited: [429, 'The request has been rate limited.'],
  PaymentRequired: [402, 'A payment is required to perform this request.'],
  QuotaExceeded: [403, 'The request exceeds the allowed quota. Quotas are a soft limit that can be increased.'],
  LimitExceeded: [413, 'The request exceeds the allowed limit. Limits are a hard limit that cannot be increased.'],
  BreakingChanges: [400, 'Request payload contains breaking changes which is not allowed for this resource without a version increment.'],
}

test('the API introduction: every type of error has the sentence and status that are documented', async () => {
  const { body } = await raw('GET', '/openapi.json', { token: null })
  const { properties, description } = body.components.schemas.Error
  for (const [type, [status, sentence]] of Object.entries(documented)) {
    assert.equal(statusOf.get(type), status, type)
    assert.ok(properties.type.enum.includes(type), type)
    assert.ok(description.includes(`\`${type}\` (${status}): ${sentence}`), `${type}: ${description}`)
  }
})

test('the API introduction: error bodies have type, description and status beside id, code and message', async () => {
  const headers = { 'x-bot-id': bot.id }
  const a = admin()
  const { integration } = await a.createIntegration({ name: fresh('installed'), version: '0.1.0', url: 'http://127.0.0.1:1', actions: { act: { input: { schema: {} }, output: { schema: {} } } } })
  const { bot: owner } = await a.createBot({ name: fresh('bot') })
  await a.updateBot({ id: owner.id, integrations: { other: { integrationId: integration.id, enabled: true, configuration: {} } } })
  await a.updateBot({ id: owner.id, states: { counted: { type: 'bot', schema: { type: 'object', properties: { n: { type: 'number' } }, required: ['n'] } } } })
  const person = { 'x-workspace-id': env.BP_WORKSPACE_ID, 'x-multiple-integrations': 'true' }
  const id = fresh('me')
  await raw('POST', '/users', { base: chatUrl, token: null, body: { id } })
  const t = await talk()
  const answers = {
    Unauthorized: await raw('GET', '/v1/chat/messages', { token: null, headers }),
    Forbidden: await raw('GET', '/v1/chat/messages', { headers: { 'x-bot-id': '7f019b1e-fc93-49f1-a9bd-07aab5babbbb' } }),
    PayloadTooLarge: await raw('POST', '/v1/chat/messages', { headers, body: `{"a":"${'x'.repeat(2 << 20)}"}` }),
    InvalidPayload: await raw('POST', '/v1/chat/messages', { headers, body: {} }),
    UnsupportedMediaType: await raw('POST', '/v1/chat/messages', { headers: { ...headers, 'content-type': 'text/plain' }, body: 'x' }),
    MethodNotFound: await raw('PATCH', '/v1/chat/messages', { headers, body: {} }),
    ResourceNotFound: await raw('GET', '/v1/chat/messages/x', { headers }),
    InvalidJsonSchema: await raw('PUT', `/v1/admin/bots/${owner.id}`, { headers: person, body: { states: { broken: { type: 'bot', schema: { type: 'nothing' } } } } }),
    InvalidDataFormat: await raw('POST', `/v1/chat/states/bot/${owner.id}/counted`, { headers: { 'x-bot-id': owner.id }, body: { payload: {} } }),
    InvalidIdentifier: await raw('POST', '/v1/admin/integrations', { headers: person, body: { name: 'no good', version: '0.1.0' } }),
    ReferenceConstraint: await raw('DELETE', `/v1/admin/integrations/${integration.id}`, { headers: person }),
    ReferenceNotFound: await raw('POST', '/v1/chat/messages', {
      headers: { 'x-bot-id': env.BP_BOT_ID },
      body: { userId: '7caa8576-f1f5-4108-9011-2280af3af42c', conversationId: t.id, type: 'text', payload: {}, tags: {} },
    }),
    InvalidQuery: await raw('GET', '/v1/chat/messages?what=1', { headers }),
    Runtime: await raw('POST', '/v1/chat/actions', { headers: { 'x-bot-id': owner.id }, body: { type: 'other:act', input: {} } }),
    AlreadyExists: await raw('POST', '/users', { base: chatUrl, token: null, body: { id } }),
    BreakingChanges: await raw('PUT', `/v1/admin/integrations/${integration.id}`, { headers: person, body: { actions: { act: null } } }),
  }
  for (const [type, { status, headers, body }] of Object.entries(answers)) {
    const [documentedStatus, description] = documented[type]
    assert.deepEqual([body.type, body.description, body.status], [type, description, documentedStatus], `${type}: ${JSON.stringify(body)}`)
    assert.deepEqual([status, body.code, headers['content-type']], [documentedStatus, documentedStatus, 'application/json'])
    assert.ok(body.message.length > 0)
    assert.match(body.id, /^err_\d{13}x[0-9A-F]{8}$/)
  }
  await t.close()
})

test('a curl user without the integration header is told the way out', async () => {
  const t = await talk()
  const { body } = await raw('POST', '/v1/chat/messages', {
    headers: { 'x-bot-id': env.BP_BOT_ID },
    body: { userId: t.client.user.id, conversationId: t.id, type: 'text', payload: { text: 'x' }, tags: {} },
  })
  assert.deepEqual([body.type, body.message], ['InvalidPayload', `User "${t.client.user.id}" is not the bot; to post as this user send x-integration-id`])
  await t.close()
})
