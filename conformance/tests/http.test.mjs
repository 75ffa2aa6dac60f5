// What operators and browsers meet: health, metrics, documents, CORS, slashes, methods.
import assert from 'node:assert/strict'
import { apiUrl, chatUrl, env, raw, talk, test } from '../lib/parley.mjs'

const plain = (path, more = {}) => raw('GET', path, { token: null, ...more })
const asBot = { 'x-bot-id': env.BP_BOT_ID }

test('health, readiness, metrics', async () => {
  assert.equal((await plain('/healthz')).status, 200)
  assert.equal((await plain('/readyz')).status, 200)
  const metrics = await plain('/metrics')
  assert.equal(metrics.status, 200)
  assert.match(metrics.text, /^# TYPE parley_/m)
})

test('one OpenAPI document of everything served, with answers and errors', async () => {
  const { body } = await plain('/openapi.json')
  assert.match(body.openapi, /^3\.1/)
  const served = Object.values(body.paths).flatMap((p) => Object.values(p)).filter((o) => o.operationId)
  const names = served.map((o) => o.operationId)
  for (const name of ['createMessage', 'listConversations', 'createBot', 'getOrSetState', 'callAction']) {
    assert.ok(names.some((n) => n === name || n.endsWith(name)), name)
  }
  for (const o of served) {
    const statuses = Object.keys(o.responses)
    assert.ok(statuses.some((s) => s.startsWith('2')), `${o.operationId} has an answer`)
    assert.ok(statuses.some((s) => s.startsWith('4') || s === 'default'), `${o.operationId} has errors`)
  }
})

test('the documents page needs nothing from elsewhere', async () => {
  const { status, text, headers } = await plain('/docs')
  assert.equal(status, 200)
  assert.match(headers['content-type'], /^text\/html/)
  for (const [, address] of text.matchAll(/(?:src|href)="([^"]+)"/g)) assert.ok(!/^(https?:)?\/\//.test(address), address)
})

test('a slash at the end makes no difference', async () => {
  // Lists of what other cases add to would differ by what comes between the two.
  const get = (path) => raw('GET', path, { headers: asBot })
  for (const path of ['/v1/chat/users/' + asBot['x-bot-id'], '/v1/chat/conversations/unknown']) {
    const [with_, without] = [await get(path + '/'), await get(path)]
    assert.equal(with_.status, without.status)
    assert.deepEqual({ ...with_.body, id: '' }, { ...without.body, id: '' })
  }
})

test('HEAD answers as GET without a body', async () => {
  const answer = await raw('HEAD', '/v1/chat/messages', { headers: asBot })
  assert.deepEqual([answer.status, answer.text], [200, ''])
})

test('a body on GET and DELETE is ignored', async () => {
  const answer = await raw('GET', '/v1/chat/messages', { headers: asBot, body: '{"userId":"…"}' })
  assert.equal(answer.status, 200)
  const odd = await raw('GET', '/v1/chat/messages', { headers: { ...asBot, 'content-type': 'text/plain' }, body: 'hello' })
  assert.equal(odd.status, 200)
  const { user } = (await raw('POST', '/v1/chat/users', { headers: asBot, body: { tags: {} } })).body
  assert.equal((await raw('DELETE', `/v1/chat/users/${user.id}`, { headers: asBot, body: '{}' })).status, 200)
})

test('browsers of any origin may ask, with credentials', async () => {
  const origin = 'https://chat.example.org'
  const wanted = 'authorization,content-type,x-bot-id,x-integration-id,x-integration-alias,x-workspace-id,x-multiple-integrations,x-user-key,idempotency-key,last-event-id,timeout'
  for (const url of [`${apiUrl}/v1/chat/messages`, `${chatUrl}/messages`]) {
    const answer = await raw('OPTIONS', '', {
      base: url,
      token: null,
      headers: { origin, 'access-control-request-method': 'POST', 'access-control-request-headers': wanted },
    })
    assert.ok([200, 204].includes(answer.status))
    assert.equal(answer.headers['access-control-allow-origin'], origin)
    assert.equal(answer.headers['access-control-allow-credentials'], 'true')
    const allowed = answer.headers['access-control-allow-headers'].toLowerCase().split(/,\s*/)
    for (const name of wanted.split(',')) assert.ok(allowed.includes(name), name)
    assert.match(answer.headers['access-control-allow-methods'], /PATCH/)
  }
  const answer = await raw('GET', '/v1/chat/messages', { headers: { ...asBot, origin } })
  assert.equal(answer.headers['access-control-allow-origin'], origin)
  assert.match(answer.headers['access-control-expose-headers'].toLowerCase(), /x-request-id/)
  assert.match(answer.headers.vary ?? '', /origin/i)
})

test('errors carry the headers of CORS too', async () => {
  const answer = await raw('GET', '/v1/chat/messages', { token: null, headers: { origin: 'https://x.example' } })
  assert.equal(answer.status, 401)
  assert.equal(answer.headers['access-control-allow-origin'], 'https://x.example')
})

test('every answer has an id of its own', async () => {
  for (const url of [`${apiUrl}/healthz`, `${apiUrl}/readyz`, `${apiUrl}/openapi.json`, `${apiUrl}/docs`, `${apiUrl}/nope`, `${chatUrl}/hello`]) {
    assert.ok((await plain('', { base: url })).headers['x-request-id'], url)
  }
  const ids = await Promise.all(Array.from({ length: 10 }, () => raw('GET', '/v1/chat/messages', { headers: asBot }).then((a) => a.headers['x-request-id'])))
  assert.equal(new Set(ids).size, 10)
})

test('percent signs in a path are decoded one segment at a time', async () => {
  const workspace = { 'x-workspace-id': env.BP_WORKSPACE_ID }
  const range = await raw('GET', '/v1/admin/hub/integrations/chat/%3E%3D0.7.3%20%3C0.8.0', { headers: workspace })
  assert.equal(range.status, 200)
  const slash = await raw('GET', '/v1/admin/hub/integrations/acme%2Fchat/latest', { headers: workspace })
  assert.equal(slash.status, 404)
  const t = await talk()
  const name = encodeURIComponent('plugin#state/with slash')
  const path = `/v1/chat/states/conversation/${t.id}/${name}`
  const set = await raw('POST', path, { headers: asBot, body: { payload: { n: 1 } } })
  assert.equal(set.body.state.name, 'plugin#state/with slash')
  assert.deepEqual((await raw('GET', path, { headers: asBot })).body.state.payload, { n: 1 })
  await t.close()
})
