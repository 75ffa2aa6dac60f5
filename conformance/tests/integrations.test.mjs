// Integrations that run outside Parley: their definitions, versions, visibility and keys.
import assert from 'node:assert/strict'
import { admin, asBot, asIntegration, collect, env, fresh, raw, rejects, test } from '../lib/parley.mjs'

const a = admin()
const json = (value) => JSON.stringify(value)
const object = (properties = {}, required = []) => ({
  $schema: 'http://json-schema.org/draft-07/schema#',
  type: 'object',
  properties,
  required,
  additionalProperties: false,
})

// definition is what the CLI sends for an integration with a bit of everything.
const definition = () => ({
  title: 'Hooky',
  description: 'Brings what a webhook says.',
  icon: Buffer.from('<svg xmlns="http://www.w3.org/2000/svg"/>').toString('base64'),
  readme: Buffer.from('# Hooky').toString('base64'),
  configuration: { schema: object({ token: { type: 'string' } }, ['token']) },
  configurations: { oauth: { title: 'Account', schema: object(), identifier: { required: true, linkTemplateScript: 'to_string!(.webhookId)' } } },
  states: { session: { type: 'integration', schema: object() }, cursor: { type: 'conversation', schema: object() } },
  events: { received: { title: 'Received', schema: object({ a: { type: 'number' } }), attributes: { kind: 'x' } } },
  actions: { ping: { title: 'Ping', cacheable: true, input: { schema: object({ n: { type: 'number' } }, ['n']) }, output: { schema: object({ pong: { type: 'number' } }) } } },
  entities: { ticket: { title: 'Ticket', schema: object() } },
  channels: {
    channel: {
      title: 'Channel',
      messages: { text: { schema: object({ text: { type: 'string', minLength: 1 } }, ['text']) } },
      conversation: { tags: { id: { title: 'Id' } }, creation: { enabled: false, requiredTags: [] } },
      message: { tags: { id: {} } },
    },
  },
  user: { tags: { id: { description: 'Id outside' } }, creation: { enabled: false, requiredTags: [] } },
  identifier: { extractScript: 'parse_json!(.body).team', fallbackHandlerScript: '{"status": 200}' },
  attributes: { category: 'support' },
})

const make = async (body = {}) => (await a.createIntegration({ name: fresh('hooky'), version: '0.1.0', url: 'http://127.0.0.1:1', ...body })).integration

test('create: the definition comes back as it was sent', async () => {
  const sent = definition()
  const integration = await make({ ...sent, sdkVersion: '5.4.3', extraOperations: { message_updated: { enabled: true } }, visibility: 'private' })
  assert.match(integration.id, /^intver_[0-9A-Z]{26}$/)
  for (const key of Object.keys(sent).filter((k) => !['icon', 'readme', 'configuration', 'configurations'].includes(k))) {
    assert.deepEqual(integration[key], sent[key], key)
  }
  assert.deepEqual(integration.configuration, { ...sent.configuration, identifier: { required: false } })
  assert.deepEqual(integration.configurations, sent.configurations)
  assert.deepEqual([integration.dev, integration.public, integration.visibility, integration.url], [false, false, 'private', 'http://127.0.0.1:1'])
  assert.equal(integration.iconUrl, `data:image/svg+xml;base64,${sent.icon}`)
  assert.deepEqual((await a.getIntegration({ id: integration.id })).integration, integration)
  await rejects(a.createIntegration({ name: integration.name, version: '0.1.0' }), 'AlreadyExists')
})

test('create: one under development has an id of its own kind and no name', async () => {
  const integration = await make({ dev: true })
  assert.match(integration.id, /^devint_[0-9A-Z]{26}$/)
  assert.equal(integration.dev, true)
  await rejects(a.getIntegrationByName({ name: integration.name, version: '0.1.0' }), 'ResourceNotFound')
  const listed = async (dev) => (await collect((x) => a.listIntegrations(x), 'integrations', { dev })).items.map((i) => i.id)
  assert.ok((await listed(true)).includes(integration.id))
  assert.ok(!(await listed(false)).includes(integration.id))
})

test('create: what cannot be is refused, and so says the dry run', async () => {
  const refused = async (body, name, message) => {
    const whole = { name: fresh('hooky'), version: '0.1.0', ...body }
    await rejects(a.createIntegration(whole), name, message)
    await rejects(a.validateIntegrationCreation(whole), name, message)
  }
  await refused({ name: 'no good' }, 'InvalidIdentifier', /no good/)
  await refused({ name: 'chat' }, 'AlreadyExists', /chat/)
  await refused({ version: '1' }, 'InvalidPayload', /version/)
  await refused({ url: 'nowhere' }, 'InvalidPayload', /url/)
  await refused({ url: 'http://127.0.0.1:1', code: 'module.exports = {}' }, 'InvalidPayload', /exclude/)
  await refused({ code: 'module.exports = {}' }, 'InvalidPayload', /planned/)
  await refused({ actions: { ping: { input: { schema: { type: 'nonsense' } }, output: { schema: {} } } } }, 'InvalidJsonSchema', /actions\.ping\.input\.schema/)
  await refused({ events: { e: { schema: { $ref: 'file:///etc/passwd' } } } }, 'InvalidJsonSchema', /events\.e\.schema/)
  await refused({ user: { tags: { 'NOT GOOD': {} } } }, 'InvalidIdentifier', /user\.tags/)
  await refused({ events: { e: { schema: { description: 'x'.repeat(2 << 20) } } } }, 'LimitExceeded', /events\.e\.schema/)
})

test('create: the dry run leaves nothing behind', async () => {
  const name = fresh('hooky')
  assert.deepEqual(await a.validateIntegrationCreation({ name, version: '0.1.0', ...definition() }), {})
  await rejects(a.getIntegrationByName({ name, version: 'latest' }), 'ResourceNotFound')
})

test('versions: exact, a range, latest, and names with a handle', async () => {
  const name = `acme/${fresh('hooky')}`
  for (const version of ['0.1.0', '0.1.9', '0.1.10', '1.0.0', '1.1.0-beta.1']) await make({ name, version })
  const found = async (version) => (await a.getIntegrationByName({ name, version })).integration.version
  assert.equal(await found('latest'), '1.0.0')
  assert.equal(await found('0.1.9'), '0.1.9')
  assert.equal(await found('<0.1.10'), '0.1.9')
  assert.equal(await found('^0.1.0'), '0.1.10')
  assert.equal(await found('1.1.0-beta.1'), '1.1.0-beta.1')
  for (const version of ['2.0.0', '<0.1.0', 'nonsense']) await rejects(a.getIntegrationByName({ name, version }), 'ResourceNotFound')
  const { items } = await collect((x) => a.listIntegrations(x), 'integrations', { name })
  assert.deepEqual(items.map((i) => i.version).sort(), ['0.1.0', '0.1.10', '0.1.9', '1.0.0', '1.1.0-beta.1'])
  const { integrations } = await a.listIntegrations({ name, version: 'latest' })
  assert.deepEqual(integrations.map((i) => i.version), ['1.0.0'])
})

test('update: merges per key and null removes', async () => {
  const integration = await make(definition())
  const { integration: updated } = await a.updateIntegration({
    id: integration.id,
    title: 'Hooky 2',
    url: 'http://127.0.0.1:2',
    states: { cursor: null, more: { type: 'user', schema: object() } },
    channels: { channel: { messages: { image: { schema: object() } }, message: { tags: { id: null } } } },
    attributes: { category: null },
    maxExecutionTime: 90,
  })
  assert.deepEqual([updated.title, updated.description, updated.url, updated.maxExecutionTime], ['Hooky 2', integration.description, 'http://127.0.0.1:2', 90])
  assert.deepEqual(Object.keys(updated.states).sort(), ['more', 'session'])
  assert.deepEqual(Object.keys(updated.channels.channel.messages).sort(), ['image', 'text'])
  assert.deepEqual(updated.channels.channel.conversation, integration.channels.channel.conversation)
  assert.deepEqual(updated.channels.channel.message.tags, {})
  assert.deepEqual(updated.attributes ?? {}, {})
  assert.deepEqual(updated.actions, integration.actions)
  assert.deepEqual((await a.getIntegration({ id: integration.id })).integration, updated)
  assert.deepEqual(await a.validateIntegrationUpdate({ id: integration.id, title: 'Never' }), {})
  await rejects(a.validateIntegrationUpdate({ id: integration.id, states: { s: { type: 'user', schema: { type: 7 } } } }), 'InvalidJsonSchema', /states\.s\.schema/)
  assert.deepEqual((await a.getIntegration({ id: integration.id })).integration, updated)
})

test('secrets: written, and never read back', async () => {
  const integration = await make({ secrets: { CLIENT_SECRET: 'hush-hush', OLD: 'hush-too' } })
  assert.deepEqual(integration.secrets, ['CLIENT_SECRET', 'OLD'])
  const { integration: updated } = await a.updateIntegration({ id: integration.id, secrets: { OLD: null, NEW: 'hush-now' } })
  assert.deepEqual(updated.secrets, ['CLIENT_SECRET', 'NEW'])
  for (const answer of [integration, updated, await a.getIntegration({ id: integration.id }), await a.listIntegrations({ name: integration.name })]) {
    assert.ok(!json(answer).includes('hush'))
  }
})

test('visibility: private ones are not in the hub, unlisted ones are not in its list', async () => {
  const seen = async (integration) => {
    const byId = await a.getPublicIntegrationById({ id: integration.id }).then((r) => r.integration, () => undefined)
    const byName = await a.getPublicIntegration({ name: integration.name, version: 'latest' }).then((r) => r.integration, () => undefined)
    assert.equal(byId?.id, byName?.id)
    for (const shown of [byId, byName]) assert.ok(!json(shown ?? {}).includes('127.0.0.1:1'))
    const { integrations } = await a.listPublicIntegrations({ name: integration.name })
    return [Boolean(byId), integrations.length > 0]
  }
  assert.deepEqual(await seen(await make({})), [false, false])
  assert.deepEqual(await seen(await make({ dev: true })), [false, false])
  assert.deepEqual(await seen(await make({ visibility: 'unlisted' })), [true, false])
  const open = await make({ public: true })
  assert.deepEqual([open.public, open.visibility], [true, 'public'])
  assert.deepEqual(await seen(open), [true, true])
  const { integration: shown } = await a.getPublicIntegrationById({ id: open.id })
  assert.equal(shown.ownerWorkspace.id, env.BP_WORKSPACE_ID)
  await a.updateIntegration({ id: open.id, visibility: 'private' })
  assert.deepEqual(await seen(open), [false, false])
})

test('installed: it cannot be deleted, nor changed so that bots break', async () => {
  const integration = await make(definition())
  const { bot } = await a.createBot({ name: fresh('bot') })
  const install = (configuration) => a.updateBot({ id: bot.id, integrations: { [integration.name]: { integrationId: integration.id, enabled: true, configuration } } })
  await rejects(install({}), 'InvalidDataFormat', /configuration\.token is required/)
  await rejects(install({ token: 7 }), 'InvalidDataFormat', /configuration\.token must be a string/)
  const { bot: updated } = await install({ token: 't' })
  assert.equal(updated.integrations[integration.name].id, integration.id)
  assert.equal(updated.integrations[integration.name].iconUrl, integration.iconUrl)
  await rejects(a.deleteIntegration({ id: integration.id }), 'ReferenceConstraint')
  for (const change of [{ actions: { ping: null } }, { channels: { channel: null } }, { events: { received: null } }, { user: { tags: { id: null } } }]) {
    await rejects(a.validateIntegrationUpdate({ id: integration.id, ...change }), 'BreakingChanges')
    await rejects(a.updateIntegration({ id: integration.id, ...change }), 'BreakingChanges', /removed/)
  }
  await a.updateIntegration({ id: integration.id, title: 'Fine', actions: { more: { input: { schema: object() }, output: { schema: object() } } } })
  const next = await make({ ...definition(), name: integration.name, version: '0.2.0', actions: {} })
  const { bot: upgraded } = await a.updateBot({ id: bot.id, integrations: { [integration.name]: { integrationId: next.id } } })
  assert.deepEqual([upgraded.integrations[integration.name].version, Object.keys(upgraded.integrations)], ['0.2.0', [integration.name]])
  await a.deleteIntegration({ id: integration.id })
  await rejects(a.getIntegration({ id: integration.id }), 'ResourceNotFound')
  assert.equal((await a.getIntegrationByName({ name: integration.name, version: 'latest' })).integration.id, next.id)
})

test('keys: one reaches the bots that have the integration, and no others', async () => {
  const integration = await make({ channels: definition().channels, user: definition().user })
  const key = await a.createIntegrationApiKey({ integrationId: integration.id, note: 'production' })
  assert.match(key.value, /^bp_iak_[\w-]{43}$/)
  assert.deepEqual((await a.listIntegrationApiKeys({ integrationId: integration.id })).iaks, [{ id: key.id, createdAt: key.createdAt, note: 'production' }])
  const bots = await Promise.all([a.createBot({ name: fresh('bot') }), a.createBot({ name: fresh('bot') })])
  const [mine, other] = bots.map((b) => b.bot.id)
  await a.updateBot({ id: mine, integrations: { hooky: { integrationId: integration.id, enabled: true, configuration: {} } } })
  const { user } = await asIntegration(mine, integration.id, { token: key.value }).createUser({ tags: { id: 'u1' } })
  assert.deepEqual(user.tags, { id: 'u1' })
  assert.deepEqual((await asBot(mine).getUser({ id: user.id })).user.tags, { 'hooky:id': 'u1' })
  await rejects(asIntegration(other, integration.id, { token: key.value }).listUsers({}), 'Forbidden')
  await rejects(admin({ token: key.value }).listIntegrations({}), 'Forbidden')
  await a.deleteIntegrationApiKey({ id: key.id })
  await rejects(asIntegration(mine, integration.id, { token: key.value }).listUsers({}), 'Unauthorized')
  await rejects(a.createIntegrationApiKey({ integrationId: 'intver_01ARZ3NDEKTSV4RRFFQ69G5FAV' }), 'ReferenceNotFound')
})

test('what is not there is not found', async () => {
  for (const id of ['intver_01ARZ3NDEKTSV4RRFFQ69G5FAV', 'nonsense']) {
    const calls = [
      () => a.getIntegration({ id }),
      () => a.updateIntegration({ id, title: 'x' }),
      () => a.validateIntegrationUpdate({ id, title: 'x' }),
      () => a.deleteIntegration({ id }),
      () => a.getPublicIntegrationById({ id }),
    ]
    for (const call of calls) await rejects(call(), 'ResourceNotFound')
  }
  await rejects(a.deleteIntegrationApiKey({ id: 'iak_01ARZ3NDEKTSV4RRFFQ69G5FAV' }), 'ResourceNotFound')
})

test('a newer client may send members that are not published yet', async () => {
  const answer = await raw('POST', '/v1/admin/integrations', {
    headers: { 'x-workspace-id': env.BP_WORKSPACE_ID },
    body: { name: fresh('hooky'), version: '1.0.0', somethingNew: { a: 1 }, events: { e: { schema: {}, alsoNew: true } } },
  })
  assert.equal(answer.status, 200)
})
