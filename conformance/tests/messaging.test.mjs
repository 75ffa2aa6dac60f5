// The Messaging API, used as its two published descriptions say. The name of a case tells which of them it takes at its word:
// "overview" is the page of the hub, "readme" the one with the TypeScript types; the words themselves stand above the case.
// Requests are plain fetch with what the descriptions name and nothing else.
import assert from 'node:assert/strict'
import { after, before } from 'node:test'
import { startBot } from '../lib/bot.mjs'
import { admin, apiUrl, asIntegration, env, fresh, makeBot, test, until } from '../lib/parley.mjs'
import { sink } from '../lib/sink.mjs'

const a = admin()
let program
before(async () => void (program = await startBot()))
after(() => program?.stop())

// install installs the integration in a bot of its own at url, waits until it is registered or not, and returns its door.
async function install({ configuration = {}, url = program.url } = {}) {
  const { integration } = await a.getPublicIntegration({ name: 'messaging', version: 'latest' })
  const bot = await makeBot({ url })
  const { bot: updated } = await a.updateBot({ id: bot.id, integrations: { messaging: { integrationId: integration.id, enabled: true, configuration } } })
  const { webhookUrl } = updated.integrations.messaging
  return { ...bot, integrationId: integration.id, webhookUrl, ...(await settled(bot.id)) }
}

async function settled(botId) {
  return until(async () => {
    const { status, statusReason } = (await a.getBot({ id: botId })).bot.integrations.messaging
    return status.endsWith('_pending') ? undefined : { status, statusReason }
  }, 'end of the registration')
}

// open is install with an endpoint that has answered the probe.
async function open(answer) {
  const replies = await sink(answer)
  const bot = await install({ configuration: { responseEndpointUrl: replies.url } })
  assert.deepEqual([bot.status, bot.statusReason], ['registered', null])
  await replies.next('probe')
  return { ...bot, replies }
}

const message = (more = {}) => ({ userId: fresh('user'), messageId: fresh('message'), conversationId: fresh('conversation'), type: 'text', text: 'hello', payload: {}, ...more })

// post sends body with the header Authorization and no other, as the descriptions say. fetch calls a text text/plain.
async function post(url, body, { authorization = `bearer ${env.BP_TOKEN}`, method = 'POST', headers = {} } = {}) {
  const text = typeof body === 'string' ? body : JSON.stringify(body)
  const answer = await fetch(url, { method, body: text, headers: authorization ? { authorization, ...headers } : headers })
  return { status: answer.status, body: await answer.json() }
}

// fails posts what must be refused.
async function fails(url, body, more, status, type, says) {
  const answer = await post(url, body, more)
  assert.deepEqual([answer.status, answer.body.code, answer.body.status, answer.body.type], [status, status, status, type])
  assert.deepEqual(Object.keys(answer.body).sort(), ['code', 'description', 'id', 'message', 'status', 'type'])
  for (const words of [says].flat()) assert.ok(answer.body.message.includes(words), `${answer.body.message} says ${words}`)
}

// "Add the url that points to your server's endpoint in the `Response Endpoint URL` field."
// "Copy the Webhook URL at the top of the page, this will be the endpoint for creating messages."
test('overview, steps 1 to 4: the field Response Endpoint URL and the webhook URL', async () => {
  const { integration } = await a.getPublicIntegration({ name: 'messaging', version: 'latest' })
  const { properties } = integration.configuration.schema
  const [field] = Object.keys(properties).filter((name) => properties[name].title === 'Response Endpoint URL')
  const replies = await sink()
  const bot = await install({ configuration: { [field]: replies.url } })
  assert.equal(bot.status, 'registered')
  assert.match(bot.webhookUrl, new RegExp(`^${apiUrl}/[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`))
  assert.equal((await post(bot.webhookUrl, message())).status, 200)
  await replies.close()
})

// "Pre-requisites: All you need is an endpoint to catch your bot's responses that returns http status 200."
test('overview, pre-requisites: an endpoint that returns 200 is all that is asked for', async () => {
  const replies = await sink()
  const bot = await install({ configuration: { responseEndpointUrl: replies.url } })
  const probe = await replies.next('probe')
  assert.deepEqual([probe.method, probe.path, probe.headers['content-type'], probe.body], ['POST', '/replies', 'application/json', { type: 'test', payload: 'test' }])
  assert.deepEqual([bot.status, bot.statusReason], ['registered', null])
  await replies.close()
})

// The same sentence, and what its author does where it is not so.
test('overview, pre-requisites: an endpoint that does not return 200 is reported', async () => {
  const replies = await sink(() => 500)
  const refused = await install({ configuration: { responseEndpointUrl: replies.url } })
  assert.deepEqual([refused.status, refused.statusReason], ['registration_failed', 'the response endpoint does not take messages: HTTP 500 Internal Server Error'])
  await replies.close()
  const gone = await install({ configuration: { responseEndpointUrl: replies.url } })
  assert.equal(gone.status, 'registration_failed')
  assert.match(gone.statusReason, /^the response endpoint does not take messages: 127\.0\.0\.1:\d+ is unreachable/)
  const without = await install()
  assert.deepEqual([without.status, without.statusReason], ['registered', null])
})

// "Send an http request with the following content: Endpoint: {INTEGRATION_WEBHOOK_URL}; Method: POST;
//  Headers: Authorization: bearer {PERSONAL_ACCESS_TOKEN}; Body: userId, messageId, conversationId, type, text, payload"
// "On your server, handle the response. The request body should look like this: type, payload, conversationId,
//  botpressUserId, botpressMessageId, botpressConversationId"
test('overview, steps 5 to 7: a request goes in and the response comes to the endpoint', async () => {
  const bot = await open()
  const sent = message({ text: 'Grüezi' })
  const { status, body } = await post(bot.webhookUrl, sent)
  assert.equal(status, 200)
  const got = await bot.replies.next('reply')
  assert.deepEqual([got.method, got.headers['content-type']], ['POST', 'application/json'])
  const { messages } = await bot.client.listMessages({ conversationId: body.conversation.id })
  assert.deepEqual(got.body, {
    type: 'text',
    payload: { text: 'You said: Grüezi' },
    conversationId: sent.conversationId,
    botpressUserId: bot.id,
    botpressMessageId: messages[0].id,
    botpressConversationId: body.conversation.id,
  })
  await bot.replies.close()
})

// "When sending messages to your bot, you provide a conversationId parameter that will be sent back to your webhook url, so
//  that you may identify where to send your bot's responses."
test('overview, how it works: the conversationId is sent back', async () => {
  const bot = await open()
  const ids = Array.from({ length: 5 }, (_, n) => `${n}: ${fresh('é/?#&')}`)
  await Promise.all(ids.map((conversationId) => post(bot.webhookUrl, message({ conversationId }))))
  const back = []
  for (const _ of ids) back.push((await bot.replies.next('reply')).body.conversationId)
  assert.deepEqual(back.sort(), ids.sort())
  await bot.replies.close()
})

// "Each request sent to this endpoint carries a single bot message, and includes the conversationId that was previously
//  provided. Depending on your bot, you could recieve multiple responses, or no responses at all."
test('overview, how it works: several responses or none, one a request, in order', async () => {
  const bot = await open()
  const { conversationId } = message()
  for (const text of ['refuse', 'twice', 'refuse', 'twice', 'count']) await post(bot.webhookUrl, message({ conversationId, text }))
  const said = []
  for (let n = 0; n < 5; n++) said.push((await bot.replies.next('reply')).body)
  assert.deepEqual(said.map((s) => s.payload.text), ['one', 'two', 'one', 'two', 'count 1'])
  assert.ok(said.every((s) => s.conversationId === conversationId))
  assert.deepEqual(bot.replies.all.length, 6)
  await bot.replies.close()
})

// "userId: (string, required) ensures that the message is added for the correct user, in case of multiple users"
test('overview, step 6: the userId tells the users of a conversation apart', async () => {
  const bot = await open()
  const { conversationId } = message()
  const answers = []
  for (const userId of ['ann', 'bob', 'ann']) answers.push((await post(bot.webhookUrl, message({ conversationId, userId }))).body)
  assert.deepEqual(answers.map((x) => x.user.tags), [{ id: 'ann' }, { id: 'bob' }, { id: 'ann' }])
  assert.equal(answers[0].user.id, answers[2].user.id)
  assert.notEqual(answers[0].user.id, answers[1].user.id)
  for (const x of answers) assert.deepEqual([x.message.userId, x.message.conversationId], [x.user.id, answers[0].conversation.id])
  await bot.replies.close()
})

// "messageId: (string, required) helps prevent duplicates"
test('overview, step 6: the same messageId is one message, also when it comes ten times at once', async () => {
  const bot = await open()
  const sent = message()
  const answers = await Promise.all(Array.from({ length: 10 }, () => post(bot.webhookUrl, sent)))
  const later = await post(bot.webhookUrl, { ...sent, text: 'something else' })
  for (const x of [...answers, later]) assert.deepEqual([x.status, x.body], [200, answers[0].body])
  await bot.replies.next('reply')
  await post(bot.webhookUrl, message({ conversationId: sent.conversationId, text: 'count' }))
  assert.equal((await bot.replies.next('reply')).body.payload.text, 'count 1')
  const heard = () => program.messages().filter((m) => m.conversationId === answers[0].body.conversation.id)
  await until(() => heard().length > 1, 'word of both')
  assert.equal(heard().length, 2)
  await bot.replies.close()
})

// "type: (string, required) should be 'text' if the message type is text, otherwise a different string for other types"
// "text: the text of the user's message if the type is text, or a summary of the payload for other types"
// "payload: (any, required) an object containing any data you want to send, specific to the message type"
test('overview, step 6: other types carry any payload with the text as its summary', async () => {
  const bot = await open()
  const payload = { order: { id: 7, lines: [{ sku: 'é-1', n: 1.5 }] }, urgent: true, note: null }
  const { body } = await post(bot.webhookUrl, message({ type: 'order', text: 'An order of one line', payload }))
  assert.deepEqual([body.message.type, body.message.payload], ['order', { text: 'An order of one line', ...payload }])
  const heard = await program.wait((m) => m.kind === 'message' && m.conversationId === body.conversation.id, 'message at the bot')
  assert.deepEqual([heard.type, heard.payload], ['order', { text: 'An order of one line', ...payload }])
  await bot.replies.close()
})

// "(string, required)", "(any, required) an object": everything at fault is named at once.
test('overview, step 6: what is missing or wrong is named, all of it', async () => {
  const bot = await open()
  const strings = ['userId', 'messageId', 'conversationId', 'type', 'text']
  const refused = (body, says) => fails(bot.webhookUrl, body, {}, 400, 'InvalidPayload', says)
  await refused({}, strings.map((name) => `${name} is required`))
  await refused('', strings.map((name) => `${name} is required`))
  for (const name of strings) {
    await refused(message({ [name]: undefined }), `${name} is required`)
    await refused(message({ [name]: '' }), `${name} must not be empty`)
    await refused(message({ [name]: 7 }), `${name} must be a string`)
  }
  await refused(message({ payload: 'x', userId: [], text: null }), ['payload must be an object', 'userId must be a string', 'text must not be null'])
  await refused(message({ userId: 'x'.repeat(501) }), 'userId must have at most 500 characters')
  await refused('{"userId":"u"', 'The body is not valid JSON')
  await refused('userId=u&text=x', 'The body is not valid JSON')
  await refused('[]', 'The body must be a JSON object')
  assert.equal((await post(bot.webhookUrl, { ...message(), payload: undefined, more: 1 })).status, 200)
  await bot.replies.close()
})

// "Headers: Authorization: bearer {PERSONAL_ACCESS_TOKEN}"
test('overview, step 6: the token may be written bearer or Bearer, and has to be a good one', async () => {
  const bot = await open()
  for (const word of ['bearer', 'Bearer', 'BEARER']) {
    assert.equal((await post(bot.webhookUrl, message(), { authorization: `${word} ${env.BP_TOKEN}` })).status, 200)
  }
  for (const authorization of [null, 'bearer', 'bearer x', env.BP_TOKEN, `basic ${env.BP_TOKEN}`, `bearer bp_pat_${'A'.repeat(43)}`]) {
    await fails(bot.webhookUrl, message(), { authorization }, 401, 'Unauthorized', 'token')
  }
  const { integration } = await a.createIntegration({ name: fresh('hooky'), version: '0.1.0', url: 'http://127.0.0.1:1' })
  const { value: key } = await a.createIntegrationApiKey({ integrationId: integration.id, note: 'x' })
  await fails(bot.webhookUrl, message(), { authorization: `bearer ${key}` }, 403, 'Forbidden', 'not for integrations')
  await bot.replies.close()
})

// "type WebhookResponse = { type: string, payload: any, conversationId: string, botpressUserId: string,
//  botpressMessageId: string, botpressConversationId: string }"
test('readme, how it works: WebhookResponse, for every type of message', async () => {
  const bot = await open()
  const { conversationId } = message()
  for (const text of ['bloc', 'carousel', 'metadata', 'x']) await post(bot.webhookUrl, message({ conversationId, text, payload: { metadata: { a: 1 } } }))
  const types = []
  for (let n = 0; n < 4; n++) {
    const { body } = await bot.replies.next('reply')
    const { payload, ...strings } = body
    assert.deepEqual(Object.keys(strings).sort(), ['botpressConversationId', 'botpressMessageId', 'botpressUserId', 'conversationId', 'type'])
    for (const [name, value] of Object.entries(strings)) assert.equal(typeof value, 'string', name)
    const { message: stored } = await bot.client.getMessage({ id: body.botpressMessageId })
    assert.deepEqual([stored.payload, stored.userId, stored.conversationId], [payload, body.botpressUserId, body.botpressConversationId])
    types.push(body.type)
  }
  assert.deepEqual(types, ['bloc', 'carousel', 'text', 'text'])
  await bot.replies.close()
})

// "Your bot may receive several responses for a single incomming message scattered through time. Each webhook invocation
//  sends a single message back to your service."
test('readme, how it works: what the bot says by itself comes too', async () => {
  const bot = await open()
  const sent = message()
  const { body } = await post(bot.webhookUrl, sent)
  await bot.replies.next('reply')
  const { message: said } = await bot.client.createMessage({ conversationId: body.conversation.id, userId: bot.id, type: 'text', tags: {}, payload: { text: 'by the way' } })
  const got = await bot.replies.next('later message')
  assert.deepEqual([got.body.botpressMessageId, got.body.conversationId], [said.id, sent.conversationId])
  await bot.replies.close()
})

// "It responds with the created or existing user, message and conversation objects."
test('readme, getting started: the answer is the created or existing user, message and conversation', async () => {
  const bot = await open()
  const sent = message()
  const created = await post(bot.webhookUrl, sent)
  assert.deepEqual([created.status, Object.keys(created.body).sort()], [200, ['conversation', 'message', 'user']])
  const mine = asIntegration(bot.id, bot.integrationId)
  assert.deepEqual((await mine.getUser({ id: created.body.user.id })).user, created.body.user)
  assert.deepEqual((await mine.getMessage({ id: created.body.message.id })).message, created.body.message)
  assert.deepEqual((await mine.getConversation({ id: created.body.conversation.id })).conversation, created.body.conversation)
  assert.deepEqual([created.body.user.tags, created.body.conversation.tags, created.body.message.tags], [{ id: sent.userId }, { id: sent.conversationId }, { id: sent.messageId }])
  assert.deepEqual([created.body.conversation.channel, created.body.conversation.integration], ['channel', 'messaging'])
  const existing = await post(bot.webhookUrl, sent)
  assert.deepEqual(existing, created)
  await bot.replies.close()
})

// "METHOD POST, ENDPOINT INTEGRATION_WEBHOOK_URL": anything else is told what is there.
test('readme, getting started: other methods and paths', async () => {
  const bot = await open()
  assert.equal((await post(`${bot.webhookUrl}/`, message())).status, 200)
  for (const method of ['PUT', 'PATCH', 'DELETE']) await fails(bot.webhookUrl, message(), { method }, 405, 'MethodNotFound', 'it takes POST')
  await fails(`${bot.webhookUrl}/messages`, message(), {}, 404, 'ResourceNotFound', 'is not an operation of this server')
  await fails(`${apiUrl}/0f0e0d0c-0b0a-4908-8706-050403020100`, message(), {}, 404, 'ResourceNotFound', '[Webhook Handler]')
  await a.updateBot({ id: bot.id, integrations: { messaging: { enabled: false } } })
  await fails(bot.webhookUrl, message(), {}, 403, 'Forbidden', 'disabled')
  await bot.replies.close()
})

// Older configurations carry the setting under another name.
test('configuration: the older name works too, and the two must agree', async () => {
  const replies = await sink()
  const bot = await install({ configuration: { responseEndpointURL: replies.url } })
  assert.equal(bot.status, 'registered')
  await post(bot.webhookUrl, message())
  assert.deepEqual((await replies.next()).body.type, 'test')
  assert.equal((await replies.next('reply')).body.payload.text, 'You said: hello')
  const set = (configuration) => a.updateBot({ id: bot.id, integrations: { messaging: { configuration } } })
  await assert.rejects(set({ responseEndpointUrl: 'http://a.example', responseEndpointURL: 'http://b.example' }), /responseEndpointUrl and configuration\.responseEndpointURL/)
  for (const url of ['a.example', 'ftp://a.example', 'http://169.254.169.254/latest', 'http://u:p@a.example/']) {
    await assert.rejects(set({ responseEndpointUrl: url }), /configuration\.responseEndpointUrl can never be called/)
  }
  await replies.close()
})

// The order in which a request is looked at: path, endpoint, token, JSON, members.
test('refusals: one request with everything wrong is told one thing after the other', async () => {
  const bot = await install()
  await fails(`${bot.webhookUrl}/x`, 'no JSON', { authorization: null }, 404, 'ResourceNotFound', [])
  await fails(bot.webhookUrl, 'no JSON', { authorization: null }, 400, 'InvalidPayload', ['no response endpoint', 'set responseEndpointUrl', '?wait=10'])
  const replies = await sink()
  await a.updateBot({ id: bot.id, integrations: { messaging: { configuration: { responseEndpointUrl: replies.url } } } })
  await fails(bot.webhookUrl, 'no JSON', { authorization: null }, 401, 'Unauthorized', 'carries no token')
  await fails(bot.webhookUrl, 'no JSON', {}, 400, 'InvalidPayload', 'not valid JSON')
  await fails(bot.webhookUrl, '{}', {}, 400, 'InvalidPayload', 'userId is required')
  await replies.close()
})

// The echo bot of parley dev has no endpoint: its replies come in the answer.
test('without an endpoint: replies in the answer, for those who wait', async () => {
  await fails(env.PARLEY_MESSAGING_URL, message(), {}, 400, 'InvalidPayload', '?wait=10')
  const sent = message()
  const { status, body } = await post(`${env.PARLEY_MESSAGING_URL}?wait=60`, sent)
  assert.deepEqual([status, body.finished, body.replies.map((m) => [m.direction, m.payload])], [200, true, [['outgoing', { text: 'hello' }]]])
  assert.deepEqual(await post(`${env.PARLEY_MESSAGING_URL}?wait=60`, sent), { status, body })
  const bot = await open()
  const waited = await post(`${bot.webhookUrl}?wait=60`, message({ text: 'twice' }))
  assert.deepEqual([waited.body.finished, waited.body.replies.map((m) => m.payload.text)], [true, ['one', 'two']])
  assert.deepEqual([(await bot.replies.next()).body.payload.text, (await bot.replies.next()).body.payload.text], ['one', 'two'])
  for (const wait of ['0', '61', 'long']) await fails(`${bot.webhookUrl}?wait=${wait}`, message(), {}, 400, 'InvalidPayload', 'wait must be a number of seconds')
  await bot.replies.close()
})

// Each message at least once and in order, though the endpoint fails at times.
test('an endpoint that fails gets everything in the end, in order', async () => {
  let n = 0
  const bot = await open(() => (++n === 3 ? 500 : 200))
  const { conversationId } = message()
  for (const text of ['a', 'b', 'c', 'd']) await post(`${bot.webhookUrl}?wait=60`, message({ conversationId, text }))
  const said = []
  while (said.at(-1) !== 'You said: d') said.push((await bot.replies.next('reply')).body.payload.text)
  assert.deepEqual([...new Set(said)], ['You said: a', 'You said: b', 'You said: c', 'You said: d'])
  assert.equal(said.length, 5)
  await bot.replies.close()
})
