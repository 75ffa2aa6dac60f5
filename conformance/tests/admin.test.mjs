// The Admin operations that the main job needs: bots, installations, hub look-ups, workspaces, tokens.
import assert from 'node:assert/strict'
import { admin, apiUrl, asBot, botpress, chat, chatIntegration, collect, env, fresh, fromBot, makeBot, raw, rejects, talk, test } from '../lib/parley.mjs'
import { operations, statusOf } from '../lib/spec.mjs'

const a = admin()
const json = (value) => JSON.stringify(value)

test('bots: create, get, update, list, delete', async () => {
  const name = fresh('bot')
  const { bot } = await a.createBot({ name, description: 'd', tags: { team: 'x' } })
  assert.match(bot.id, /^bot_[0-9A-Z]{26}$/)
  assert.deepEqual([bot.name, bot.description, bot.dev, bot.status, bot.tags], [name, 'd', false, 'active', { team: 'x' }])
  assert.deepEqual((await a.getBot({ id: bot.id })).bot, bot)
  const { bot: renamed } = await a.updateBot({ id: bot.id, name: `${name}-2` })
  assert.deepEqual([renamed.name, renamed.description, renamed.tags], [`${name}-2`, 'd', { team: 'x' }])
  const { bots } = await a.listBots({})
  assert.ok(bots.some((b) => b.id === bot.id && b.name === renamed.name))
  await a.deleteBot({ id: bot.id })
  await rejects(a.getBot({ id: bot.id }), 'ResourceNotFound')
  assert.ok(!(await collect((x) => a.listBots(x), 'bots')).items.some((b) => b.id === bot.id))
  await assert.rejects(asBot(bot.id).listMessages({}))
})

test('bots: a definition is kept as it was sent', async () => {
  const schema = { type: 'object', properties: { n: { type: 'number' } }, additionalProperties: false }
  const definition = {
    states: { counter: { type: 'conversation', schema } },
    events: { tick: { title: 'Tick', schema } },
    actions: { add: { title: 'Add', input: { schema }, output: { schema } } },
    user: { tags: { level: { title: 'Level' } } },
    conversation: { tags: { topic: {} } },
    message: { tags: { mark: { description: 'm' } } },
    configuration: { data: { lang: 'fr' }, schema },
    subscriptions: { events: { 'chat:custom': {} } },
  }
  const { bot } = await a.createBot({ name: fresh('bot'), ...definition })
  for (const [key, value] of Object.entries(definition)) assert.deepEqual(bot[key], value, key)
  assert.deepEqual((await a.getBot({ id: bot.id })).bot, bot)
})

test('bots: an update merges per key and null removes', async () => {
  const schema = { type: 'object' }
  const { bot } = await a.createBot({ name: fresh('bot'), states: { one: { type: 'bot', schema }, two: { type: 'user', schema } } })
  const { bot: changed } = await a.updateBot({ id: bot.id, states: { one: null, three: { type: 'conversation', schema } } })
  assert.deepEqual(Object.keys(changed.states).sort(), ['three', 'two'])
})

test('bots: once one tag or state is declared, others are refused', async () => {
  const b = await makeBot({ states: { counter: { type: 'bot', schema: { type: 'object' } } }, user: { tags: { level: {} } } })
  await b.client.setState({ type: 'bot', id: b.id, name: 'counter', payload: { n: 1 } })
  await assert.rejects(b.client.setState({ type: 'bot', id: b.id, name: 'other', payload: {} }))
  await b.client.createUser({ tags: { level: 'gold' } })
  await assert.rejects(b.client.createUser({ tags: { colour: 'red' } }))
  assert.deepEqual((await b.client.listUsers({ tags: { colour: 'red' } })).users, [])
})

test('bots: url is accepted with and without dev and never comes back', async () => {
  const url = 'http://127.0.0.1:1/secret-path'
  const made = await Promise.all([a.createBot({ url, dev: true }), a.createBot({ url, name: fresh('bot') })])
  assert.match(made[0].bot.id, /^devbot_[0-9A-Z]{26}$/)
  assert.deepEqual(made.map((m) => m.bot.dev), [true, false])
  const seen = [...made, await a.updateBot({ id: made[1].bot.id, url: `${url}/2` }), await a.getBot({ id: made[0].bot.id })]
  for (const answer of seen) assert.ok(!json(answer).includes('secret-path'))
  const listed = async (dev) => (await collect((x) => a.listBots(x), 'bots', { dev })).items.map((b) => b.id)
  assert.ok((await listed(true)).includes(made[0].bot.id))
  assert.ok(!(await listed(false)).includes(made[0].bot.id))
  await rejects(a.createBot({ name: fresh('bot'), url, code: 'module.exports = {}' }), 'InvalidPayload')
})

test('bots: lists page in twenties', async () => {
  for (let n = 0; n < 21; n++) await a.createBot({ name: fresh('page') })
  const { items, sizes } = await collect((x) => a.listBots(x), 'bots')
  assert.ok(sizes.length > 1 && sizes.slice(0, -1).every((s) => s === 20))
  assert.equal(new Set(items.map((b) => b.id)).size, items.length)
})

test('bots: a newer client may send members that are not published yet', async () => {
  const answer = await raw('POST', '/v1/admin/bots', {
    headers: { 'x-workspace-id': env.BP_WORKSPACE_ID },
    body: { name: fresh('bot'), somethingNew: { a: 1 } },
  })
  assert.equal(answer.status, 200)
})

test('installations: keyed by alias when asked for, else by integration id', async () => {
  const b = await makeBot({ alias: 'talk' })
  const byAlias = (await a.getBot({ id: b.id })).bot.integrations
  assert.deepEqual(Object.keys(byAlias), ['talk'])
  const old = admin({ headers: {} })
  const byId = (await old.getBot({ id: b.id })).bot.integrations
  assert.deepEqual(Object.keys(byId), [b.integrationId])
  assert.deepEqual(byId[b.integrationId], byAlias.talk)
})

test('installations: the answer says where the door is', async () => {
  const b = await makeBot()
  const { chat: installed } = (await a.getBot({ id: b.id })).bot.integrations
  assert.equal(installed.id, b.integrationId)
  assert.equal(installed.name, 'chat')
  assert.equal(installed.enabled, true)
  assert.equal(installed.status, 'registered')
  assert.equal(installed.webhookUrl, `${apiUrl}/${installed.webhookId}`)
  assert.match(installed.webhookId, /^[0-9a-f-]{36}$/)
})

test('installations: by id, the way older clients do', async () => {
  const integration = await chatIntegration()
  const { bot } = await a.createBot({ name: fresh('bot') })
  const old = admin({ headers: {} })
  const { bot: updated } = await old.updateBot({ id: bot.id, integrations: { [integration.id]: { enabled: true, configuration: {} } } })
  assert.deepEqual(Object.keys(updated.integrations), [integration.id])
  const t = await talk(`${apiUrl}/${updated.integrations[integration.id].webhookId}`)
  await t.say('hi')
  await t.close()
})

test('installations: an update without integrations leaves them, null removes, again revives the door', async () => {
  const b = await makeBot()
  await a.updateBot({ id: b.id, name: fresh('bot') })
  const t = await talk(b.chatUrl)
  await a.updateBot({ id: b.id, integrations: { chat: null } })
  assert.deepEqual((await a.getBot({ id: b.id })).bot.integrations, {})
  await assert.rejects(chat.Client.connect({ apiUrl: b.chatUrl }))
  const { bot } = await a.updateBot({ id: b.id, integrations: { chat: { integrationId: b.integrationId, enabled: true, configuration: {} } } })
  assert.equal(bot.integrations.chat.webhookId, b.webhookId)
  await t.say('still here')
})

test('installations: disabled means closed', async () => {
  const b = await makeBot()
  const t = await talk(b.chatUrl)
  await a.updateBot({ id: b.id, integrations: { chat: { enabled: false } } })
  await assert.rejects(t.say('anyone?'))
  await a.updateBot({ id: b.id, integrations: { chat: { enabled: true } } })
  await t.say('back')
  await t.close()
})

test('installations: the same integration twice, under two aliases', async () => {
  const b = await makeBot({ alias: 'one' })
  const { bot } = await a.updateBot({ id: b.id, integrations: { two: { integrationId: b.integrationId, enabled: true, configuration: {} } } })
  assert.deepEqual(Object.keys(bot.integrations).sort(), ['one', 'two'])
  const e = await rejects(b.integration.listUsers({}), 'InvalidPayload')
  assert.match(e.message, /one/)
  assert.match(e.message, /two/)
  const two = asBot(b.id, { integrationId: b.integrationId, integrationAlias: 'two' })
  const { user } = await two.createUser({ tags: { fid: fresh('u') } })
  assert.deepEqual(Object.keys((await b.client.getUser({ id: user.id })).user.tags), ['two:fid'])
  const { conversation } = await two.createConversation({ channel: 'channel', tags: {} })
  assert.equal(conversation.integration, 'two')
})

test('installations: what is not to be had is refused', async () => {
  const { bot } = await a.createBot({ name: fresh('bot') })
  const install = (integrations) => a.updateBot({ id: bot.id, integrations })
  await assert.rejects(install({ x: { integrationId: 'intver_01ARZ3NDEKTSV4RRFFQ69G5FAV', enabled: true, configuration: {} } }))
  const integration = await chatIntegration()
  await assert.rejects(install({ chat: { integrationId: integration.id, enabled: true, configuration: { encryptionKey: 7 } } }))
  assert.deepEqual((await a.getBot({ id: bot.id })).bot.integrations, {})
})

test('hub: chat by version, range and latest; by id; in the list', async () => {
  for (const version of ['0.7.3', '0.7.6', '1.0.0', 'latest', '>=0.7.3 <0.8.0', '^1.0.0']) {
    const { integration } = await a.getPublicIntegration({ name: 'chat', version })
    assert.equal(integration.name, 'chat')
    if (/^\d/.test(version)) assert.equal(integration.version, version)
    const byId = await a.getPublicIntegrationById({ id: integration.id })
    assert.deepEqual(byId.integration, integration)
  }
  const { integrations } = await a.listPublicIntegrations({})
  assert.ok(integrations.some((i) => i.name === 'chat'))
  await rejects(a.getPublicIntegration({ name: 'nope', version: 'latest' }), 'ResourceNotFound')
  await rejects(a.getPublicIntegration({ name: 'chat', version: '99.0.0' }), 'ResourceNotFound')
})

test('hub: messaging by version, range and latest; by id; in the list', async () => {
  for (const version of ['0.2.3', 'latest', '^0.2.0']) {
    const { integration } = await a.getPublicIntegration({ name: 'messaging', version })
    assert.deepEqual([integration.name, integration.version, integration.title], ['messaging', '0.2.3', 'Messaging API'])
    assert.deepEqual((await a.getPublicIntegrationById({ id: integration.id })).integration, integration)
  }
  const { integrations } = await a.listPublicIntegrations({})
  assert.ok(integrations.some((i) => i.name === 'messaging'))
})

test('hub: the definition of chat is what its users build on', async () => {
  const integration = await chatIntegration()
  const { channel } = integration.channels
  assert.deepEqual(Object.keys(channel.conversation.tags).sort(), ['fid', 'owner'])
  assert.deepEqual(Object.keys(channel.message.tags), ['fid'])
  assert.deepEqual(Object.keys(integration.user.tags).sort(), ['fid', 'profile'])
  assert.deepEqual(Object.keys(integration.events), ['custom'])
  assert.ok(integration.actions.sendEvent)
  for (const type of ['text', 'image', 'audio', 'video', 'file', 'location', 'carousel', 'card', 'choice', 'dropdown', 'bloc', 'markdown']) {
    assert.ok(channel.messages[type], type)
  }
})

test('integrations of the workspace: none of its own, so look-ups go on to the hub', async () => {
  assert.deepEqual((await a.listIntegrations({ name: 'chat' })).integrations, [])
  await rejects(a.getIntegrationByName({ name: 'chat', version: 'latest' }), 'ResourceNotFound')
  await rejects(a.getIntegration({ id: 'intver_01ARZ3NDEKTSV4RRFFQ69G5FAV' }), 'ResourceNotFound')
})

test('workspaces and account', async () => {
  const { workspaces } = await admin({ workspaceId: undefined }).listWorkspaces({})
  const mine = workspaces.find((w) => w.id === env.BP_WORKSPACE_ID)
  assert.ok(mine.botCount >= 1)
  assert.equal((await a.getWorkspace({ id: mine.id })).name, mine.name)
  const { account } = await a.getAccount({})
  assert.equal(mine.ownerId, account.id)
  await rejects(a.getWorkspace({ id: '00000000-0000-4000-8000-000000000000' }), 'ResourceNotFound')
})

test('tokens: a new one works at once, a deleted one no more', async () => {
  const note = fresh('note')
  const { pat } = await a.createPersonalAccessToken({ note })
  assert.match(pat.value, /^bp_pat_[\w-]{43}$/)
  const mine = admin({ token: pat.value })
  const { pats } = await mine.listPersonalAccessTokens({})
  const listed = pats.find((p) => p.id === pat.id)
  assert.deepEqual(listed, { id: pat.id, createdAt: pat.createdAt, note })
  assert.ok(!json(pats).includes(pat.value))
  await a.deletePersonalAccessToken({ id: pat.id })
  await rejects(mine.getAccount({}), 'Unauthorized')
  await rejects(asBot(env.BP_BOT_ID, { token: pat.value }).listMessages({}), 'Unauthorized')
  await rejects(a.deletePersonalAccessToken({ id: pat.id }), 'ResourceNotFound')
})

test('a workspace that is not yours, or none, is refused', async () => {
  await assert.rejects(admin({ workspaceId: undefined }).createBot({ name: 'x' }))
  await assert.rejects(admin({ workspaceId: '00000000-0000-4000-8000-000000000000' }).createBot({ name: 'x' }))
  await rejects(admin({ token: 'bp_pat_wrong' }).listBots({}), 'Unauthorized')
})

test('the built-in bot answers, and is listed like any other', async () => {
  const { bot } = await a.getBot({ id: env.BP_BOT_ID })
  const [installed] = Object.values(bot.integrations)
  assert.equal(`${apiUrl}/${installed.webhookId}`, env.PARLEY_CHAT_API_URL)
  const t = await talk()
  await t.say('anyone there?')
  await t.signals.wait(fromBot)
  await t.close()
})

test('operations that are planned or refused answer a typed error', async () => {
  const later = operations.filter((o) => ['admin', 'files', 'tables', 'billing'].includes(o.family) && o.state !== 'done')
  assert.ok(later.length > 0)
  const fill = (path) => path.replace(/\{\w+\}/g, 'x')
  for (const o of later) {
    const body = ['GET', 'HEAD', 'DELETE'].includes(o.method) ? undefined : {}
    const answer = await raw(o.method, fill(o.path), { headers: { 'x-workspace-id': env.BP_WORKSPACE_ID, 'x-bot-id': env.BP_BOT_ID }, body })
    assert.ok(answer.status >= 400 && statusOf.has(answer.body?.type) && answer.body.type !== 'Internal', `${o.name}: ${answer.status} ${answer.text}`)
  }
})

test('the list of operations is the published one', async () => {
  const { published } = await import('../lib/spec.mjs')
  for (const [family, { state }] of Object.entries(published)) {
    if (!state?.operations) continue
    const ours = operations.filter((o) => o.family === family)
    assert.equal(ours.length, Object.keys(state.operations).length, family)
    for (const o of ours) {
      const theirs = state.operations[o.name]
      assert.deepEqual([o.method, o.path, o.status], [theirs?.method.toUpperCase(), theirs?.path, theirs?.response.status ?? 200], o.name)
    }
  }
  assert.equal(operations.filter((o) => o.family !== 'parley').length, 219)
})

test('every error type has its class in the official client', async () => {
  for (const [type, status] of statusOf) {
    const body = { id: 'err_1701413466111xF2B68D30', code: status, type, message: 'm', description: 'd', status }
    const e = botpress.errorFrom(body)
    assert.deepEqual([e.type, e.code, e.message, e.id], [type, status, 'm', body.id])
  }
})
