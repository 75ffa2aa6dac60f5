// What the published APIs say an answer looks like: operations by method and path, a validator for each operation's
// answer, for the error body and for the signals of a chat listener.
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import Ajv from 'ajv'

const require = createRequire(import.meta.url)
const published = require('@botpress/api')

const list = readFileSync(new URL('../../spec/operations.txt', import.meta.url), 'utf8')

// operations is spec/operations.txt: family, method, path, name, status, state, reason, and a matcher for the path.
export const operations = list
  .split('\n')
  .filter((line) => line && !line.startsWith('#'))
  .map((line) => {
    const [family, method, path, name, status, state, ...reason] = line.split(/\s+/)
    return { family, method, path, name, status: Number(status), state: state.replace(':', ''), reason: reason.join(' '), ...matcher(path) }
  })

function matcher(path) {
  const parts = path.split('/').slice(1)
  const pattern = parts.map((p) => (p.startsWith('{') ? '[^/]+' : p.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')))
  return { pattern: new RegExp('^/' + pattern.join('/') + '/?$'), fixed: parts.filter((p) => !p.startsWith('{')).length }
}

const uuid = /^\/[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}(?=\/|$)/

// find names the operation that answers method and path (without query), or null. A word in a path beats a parameter.
export function find(method, path) {
  const door = uuid.test(path)
  const local = door ? path.replace(uuid, '') : path
  const hits = operations.filter((o) => (o.family === 'chat') === door && o.method === method && o.pattern.test(local))
  return hits.sort((a, b) => b.fixed - a.fixed)[0] ?? null
}

// Dates are ISO 8601 in UTC with milliseconds: clients compare them as text.
const dateTime = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/

const ajv = new Ajv({ strict: false, allErrors: true })
ajv.addFormat('date-time', dateTime)
ajv.addFormat('date', /^\d{4}-\d\d-\d\d$/)
ajv.addFormat('uuid', /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i)
ajv.addFormat('uri', (s) => URL.canParse(s))

// An answer carries exactly the published members, so an object that lists its members is closed unless it says otherwise.
function closed(schema) {
  const { nullable, ...out } = schema
  if (out.items) out.items = closed(out.items)
  if (out.properties) {
    out.properties = Object.fromEntries(Object.entries(out.properties).map(([name, s]) => [name, closed(s)]))
    out.additionalProperties ??= false
  }
  if (typeof out.additionalProperties === 'object') out.additionalProperties = closed(out.additionalProperties)
  // JSON Schema has no nullable.
  return nullable && (out.type || out.$ref) ? { anyOf: [out, { type: 'null' }] } : out
}

const text = { type: 'string' }
const filled = { type: 'string', minLength: 1 }
const date = { type: 'string', format: 'date-time' }
const open = { type: 'object', additionalProperties: true }

function object(properties, optional = []) {
  return { type: 'object', properties, required: Object.keys(properties).filter((k) => !optional.includes(k)), additionalProperties: false }
}

// A payload's own members are checked; others may stand beside them, as the chat client's types say.
function payload(type, properties, optional = []) {
  return { ...object({ type: { const: type }, ...properties }, optional), additionalProperties: true }
}

const simple = [
  payload('text', { text: filled }),
  payload('markdown', { markdown: filled }),
  payload('image', { imageUrl: filled }),
  payload('audio', { audioUrl: filled }),
  payload('video', { videoUrl: filled }),
  payload('file', { fileUrl: filled, title: filled }, ['title']),
  payload('location', { latitude: { type: 'number' }, longitude: { type: 'number' }, address: text, title: text }, ['address', 'title']),
]
const button = { ...object({ action: { enum: ['postback', 'url', 'say'] }, label: filled, value: filled }), additionalProperties: true }
const card = payload('card', { title: filled, subtitle: filled, imageUrl: filled, actions: { type: 'array', items: button } }, ['subtitle', 'imageUrl'])
const option = { ...object({ label: filled, value: filled }), additionalProperties: true }
const choice = (type) => payload(type, { text: filled, options: { type: 'array', items: option } })
const anyPayload = {
  anyOf: [
    ...simple,
    card,
    payload('carousel', { items: { type: 'array', items: card } }),
    choice('choice'),
    choice('dropdown'),
    payload('bloc', { items: { type: 'array', items: { anyOf: simple } } }),
  ],
}

const chatUser = object({ id: filled, createdAt: date, updatedAt: date, name: text, pictureUrl: text, profile: text }, ['name', 'pictureUrl', 'profile'])
const chatConversation = object({ id: filled, createdAt: date, updatedAt: date })
const messageMembers = { id: filled, createdAt: date, payload: anyPayload, userId: filled, conversationId: filled, metadata: open }
const chatMessage = object(messageMembers, ['metadata'])
const eventMembers = { id: filled, createdAt: date, payload: open, conversationId: filled, userId: filled }
const chatEvent = object(eventMembers)
const meta = object({ nextToken: filled }, ['nextToken'])
const many = (name, item) => object({ [name]: { type: 'array', items: item }, meta })

// The answers of the Chat API, which @botpress/api does not describe: members as in the types of @botpress/chat.
const chat = {
  createUser: object({ user: chatUser, key: filled }),
  getOrCreateUser: object({ user: chatUser }),
  getUser: object({ user: chatUser }),
  updateUser: object({ user: chatUser }),
  deleteUser: object({}),
  createConversation: object({ conversation: chatConversation }),
  getOrCreateConversation: object({ conversation: chatConversation }),
  getConversation: object({ conversation: chatConversation }),
  listConversations: many('conversations', chatConversation),
  deleteConversation: object({}),
  listMessages: many('messages', chatMessage),
  listParticipants: many('participants', chatUser),
  addParticipant: object({ participant: chatUser }),
  getParticipant: object({ participant: chatUser }),
  removeParticipant: object({}),
  createMessage: object({ message: chatMessage }),
  getMessage: object({ message: chatMessage }),
  deleteMessage: object({}),
  createEvent: object({ event: chatEvent }),
  getEvent: object({ event: chatEvent }),
}

const signal = (type, data) => object({ type: { const: type }, data })
const isBot = { type: 'boolean' }
const participant = object({ conversationId: filled, participantId: filled })
const signals = {
  message_created: object({ ...messageMembers, isBot }, ['metadata']),
  event_created: object({ ...eventMembers, id: { type: ['string', 'null'] }, isBot }),
  participant_added: participant,
  participant_removed: participant,
  message_deleted: object({ id: filled, conversationId: filled, userId: filled }),
  message_stream_delta: object(
    { streamId: filled, conversationId: filled, userId: filled, createdAt: date, sequence: { type: 'integer' }, delta: text, clientMessageId: text },
    ['clientMessageId'],
  ),
  message_stream_complete: object({ streamId: filled, message: chatMessage }),
  message_stream_abort: object({ streamId: filled, conversationId: filled }),
}

const errorBody = object(
  {
    id: { type: 'string', pattern: '^err_\\d{13}x[0-9A-F]{8}$' },
    code: { type: 'integer' },
    type: filled,
    message: filled,
    description: filled,
    status: { type: 'integer' },
    metadata: open,
  },
  ['metadata'],
)

// statusOf gives the HTTP status that each published error type stands for.
export const statusOf = new Map(published.runtime.state.errors.map((e) => [e.type, e.status]))

const compiled = new Map()

function validator(key, make) {
  if (!compiled.has(key)) compiled.set(key, ajv.compile(make()))
  return compiled.get(key)
}

function problems(check, value) {
  return check(value) ? [] : check.errors.slice(0, 8).map((e) => `${e.instancePath || '/'} ${e.message} ${JSON.stringify(e.params)}`)
}

function responseSchema({ family, name }) {
  if (family === 'chat') return chat[name]
  const state = published[family].state
  const schemas = Object.fromEntries(Object.entries(state.schemas).map(([k, v]) => [k, closed(v.schema)]))
  return { ...closed(state.operations[name].response.schema), components: { schemas } }
}

// answerProblems lists what is wrong with a successful answer of op; none when it is as published.
export function answerProblems(op, status, body) {
  const wrong = status === op.status ? [] : [`status ${status}, published ${op.status}`]
  if (op.family === 'parley') return wrong // what no API publishes
  return wrong.concat(problems(validator(`${op.family} ${op.name}`, () => responseSchema(op)), body))
}

// waitedProblems lists what is wrong with the answer to one who waits (?wait=): beside what is published it holds the replies,
// each as getMessage shows it, and whether there are more to come.
export function waitedProblems(op, status, { replies, finished, ...body }) {
  const wrong = answerProblems(op, status, body)
  if (typeof finished !== 'boolean') wrong.push(`finished is ${finished}`)
  if (!Array.isArray(replies)) return [...wrong, `replies are ${replies}`]
  const shown = operations.find((o) => o.family === op.family && o.name === 'getMessage')
  return wrong.concat(...replies.map((message) => answerProblems(shown, shown.status, { message })))
}

// errorProblems lists what is wrong with an error answer.
export function errorProblems(status, body) {
  const wrong = problems(validator('error', () => errorBody), body)
  if (wrong.length) return wrong
  if (!statusOf.has(body.type)) return [`type ${body.type} is not published`]
  if (statusOf.get(body.type) !== status) wrong.push(`type ${body.type} stands for ${statusOf.get(body.type)}, not ${status}`)
  if (body.code !== status || body.status !== status) wrong.push(`HTTP ${status}, code ${body.code}, status ${body.status}`)
  return wrong
}

// signalProblems lists what is wrong with one signal of a chat listener.
export function signalProblems(value) {
  if (!signals[value?.type]) return [`unknown signal type ${value?.type}`]
  return problems(validator(`signal ${value.type}`, () => signal(value.type, signals[value.type])), value)
}

export { published }
