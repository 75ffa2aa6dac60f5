// What published guides tell people to do, done here as they say.
import assert from 'node:assert/strict'
import { createHmac } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { after, before } from 'node:test'
import { startBot } from '../lib/bot.mjs'
import { apiUrl, botpress, chatUrl, env, fresh, fromBot, makeBot, raw, talk, test, until } from '../lib/parley.mjs'
import { statusOf } from '../lib/spec.mjs'

let program
let bot
before(async () => {
  program = await startBot()
  bot = await makeBot({ url: program.url })
})
after(() => program?.stop())

// request stands in for the callback library that the guide's program uses: GET unless told otherwise, body sent as it is.
function request(options, done) {
  const { url, headers, body } = options
  const path = url.slice(apiUrl.length)
  raw('GET', path, { token: null, headers, body }).then((answer) => done(null, { ...answer, body: answer.text }, answer.text), done)
}

const guide = readFileSync(new URL('../testdata/integration-guide.js', import.meta.url), 'utf8')

// run executes the guide's program as it is written, with the reader's values in the places it leaves open.
function run({ authorization, botId, integrationId, userId, conversationId }) {
  const values = [authorization, botId, integrationId, userId, conversationId]
  const text = guide.replace('https://api.botpress.cloud', apiUrl).replaceAll('"..."', () => JSON.stringify(values.shift()))
  assert.equal(values.length, 0)
  return new Promise((resolve) => {
    const printed = []
    const console = { log: (x) => printed.push(x), error: (e) => printed.push(e) }
    const res = { json: (answer) => resolve({ answer, printed }) }
    new Function('axios', 'request', 'res', 'console', text)(botpress.axios.default ?? botpress.axios, request, res, console)
  })
}

const bearer = () => `Bearer ${env.BP_TOKEN}`

test('the integration guide: ids are found by listing messages, the program posts and reads the reply', async () => {
  const t = await talk(bot.chatUrl)
  await t.say('WHO R U?')
  await t.signals.wait(fromBot)
  const listed = await raw('GET', '/v1/chat/messages/', {
    token: null,
    headers: { accept: '*/*', 'content-type': 'application/json', authorization: bearer(), 'x-bot-id': bot.id },
  })
  const { userId, conversationId } = listed.body.messages.find((m) => m.direction === 'incoming')
  assert.deepEqual([userId, conversationId], [t.client.user.id, t.id])
  const { answer, printed } = await run({ authorization: bearer(), botId: bot.id, integrationId: bot.integrationId, userId, conversationId })
  assert.deepEqual(printed, ['Hey There!'])
  assert.deepEqual([answer.direction, answer.conversationId, answer.payload.text], ['outgoing', conversationId, 'You said: Hey There!'])
  await t.close()
})

test('the integration guide: a bot without messages lists none', async () => {
  const silent = await makeBot()
  const listed = await raw('GET', '/v1/chat/messages/', { headers: { 'x-bot-id': silent.id } })
  assert.deepEqual(listed.body, { messages: [], meta: {} })
})

test('the integration guide: its two errors, word for word', async () => {
  const t = await talk(bot.chatUrl)
  const values = { authorization: bearer(), botId: bot.id, integrationId: bot.integrationId, userId: t.client.user.id, conversationId: t.id }
  const fails = async (change) => {
    const { answer, printed } = await run({ ...values, ...change })
    assert.deepEqual(answer, { error: 'An error occurred' })
    return printed[0].response.data
  }
  const uuid = '7caa8576-f1f5-4108-9011-2280af3af42c'
  const unknown = await fails({ conversationId: uuid })
  assert.deepEqual([unknown.code, unknown.type, unknown.message], [400, 'ReferenceNotFound', `Conversation "${uuid}" doesn't exist for bot "${bot.id}"`])
  assert.match(unknown.id, /^err_\d{13}x[0-9A-F]{8}$/)
  const user = await fails({ userId: uuid })
  assert.deepEqual([user.code, user.type, user.message], [400, 'ReferenceNotFound', `User "${uuid}" doesn't exist for bot "${bot.id}"`])
  const invalid = await fails({ userId: 'd360d20b-849d-4a4d-9b3c-5597eb4868c4x'.slice(1) })
  assert.deepEqual([invalid.code, invalid.type], [400, 'InvalidPayload'])
  assert.match(invalid.message, /^The provided UUID is invalid/)
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

test('the Chat API introduction: a key of one’s own making, where createUser is refused', async () => {
  const encryptionKey = fresh('key')
  const manual = await makeBot({ configuration: { encryptionKey } })
  const part = (v) => Buffer.from(JSON.stringify(v)).toString('base64url')
  const id = fresh('me')
  const head = `${part({ alg: 'HS256', typ: 'JWT' })}.${part({ id, iat: Math.floor(Date.now() / 1000) })}`
  const key = `${head}.${createHmac('sha256', encryptionKey).update(head).digest('base64url')}`
  const call = (method, path, body, headers = { 'x-user-key': key }) => raw(method, path, { base: manual.chatUrl, token: null, body, headers })
  assert.equal((await call('POST', '/users', { id }, {})).status, 401)
  assert.equal((await call('POST', '/users/get-or-create', {})).body.user.id, id)
  assert.equal((await call('GET', '/users/me')).body.user.id, id)
  assert.equal((await call('GET', '/users/me', undefined, { 'x-user-key': key.slice(0, -2) })).status, 401)
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

test('the API introduction: error bodies have type, description and status beside id, code and message', async () => {
  const sentences = {
    Unauthorized: 'The request requires to be authenticated.',
    ResourceNotFound: 'The requested resource does not exist.',
    InvalidPayload: 'The request payload is invalid.',
    MethodNotFound: 'The requested method does not exist.',
    UnsupportedMediaType: 'The request is invalid because the content-type is not supported.',
  }
  const headers = { 'x-bot-id': env.BP_BOT_ID }
  const answers = [
    await raw('GET', '/v1/chat/messages', { token: null, headers }),
    await raw('GET', '/v1/chat/messages/x', { headers }),
    await raw('POST', '/v1/chat/messages', { headers, body: {} }),
    await raw('PATCH', '/v1/chat/messages', { headers, body: {} }),
    await raw('POST', '/v1/chat/messages', { headers: { ...headers, 'content-type': 'text/plain' }, body: 'x' }),
  ]
  assert.deepEqual(answers.map((a) => a.body.type), Object.keys(sentences))
  for (const { status, body } of answers) {
    assert.equal(body.description, sentences[body.type])
    assert.deepEqual([body.status, body.code, statusOf.get(body.type)], [status, status, status])
  }
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
