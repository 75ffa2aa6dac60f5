// Sees every answer that Parley gives this process, whichever client asked, and checks it against the published APIs.
// Loaded before the clients (node --import), it follows node:http through its diagnostics channel, so nothing stands
// between client and server. What it saw goes to PARLEY_RECORD_DIR as JSON lines: {op, client, status} for an answer,
// {problem} for one that is not as published.
import diagnostics from 'node:diagnostics_channel'
import { mkdirSync, openSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { StringDecoder } from 'node:string_decoder'
import { gunzipSync } from 'node:zlib'
import { answerProblems, errorProblems, find, signalProblems, waitedProblems } from './spec.mjs'

const base = new URL(JSON.parse(process.env.PARLEY_ENV ?? '{}').BP_API_URL ?? 'http://127.0.0.1:1')
const dir = process.env.PARLEY_RECORD_DIR
if (dir) mkdirSync(dir, { recursive: true })
const file = dir ? openSync(join(dir, `${process.pid}.ndjson`), 'a') : undefined

const raw = new WeakSet()
const unread = []

// ours marks a request that a test wrote by hand, which does not count as exercised by an official client.
export function ours(request) {
  raw.add(request)
  return request
}

// takeProblems returns what was wrong since the last call.
export function takeProblems() {
  return unread.splice(0)
}

function note(line) {
  if (file !== undefined) writeSync(file, JSON.stringify(line) + '\n')
}

function report(request, status, problems) {
  for (const p of problems) {
    const problem = `${request.method} ${request.path} → ${status}: ${p}`
    unread.push(problem)
    note({ problem })
  }
}

diagnostics.subscribe('http.client.request.start', ({ request }) => {
  if (request.host !== base.hostname || !request.getHeader('host')?.endsWith(`:${base.port}`)) return
  request.prependListener('response', (answer) => follow(request, answer))
})

// follow taps the chunks on their way into the stream: a listener for data would start the flow before its owner is there.
function follow(request, answer) {
  const op = find(request.method, request.path.split('?')[0])
  const stream = answer.statusCode === 200 && op?.name === 'listenConversation'
  const check = stream ? checkFrames(request, op, answer) : checkBody(request, op, answer)
  const push = answer.push
  answer.push = function (chunk, encoding) {
    check(chunk)
    return push.call(this, chunk, encoding)
  }
}

function checkBody(request, op, answer) {
  const chunks = []
  return (chunk) => {
    if (chunk !== null) return void chunks.push(chunk)
    // A client that lets go of an answer unread has not seen it.
    if (answer.statusCode === 101 || request.destroyed) return
    report(request, answer.statusCode, headProblems(request, op, answer).concat(bodyProblems(request, op, answer, Buffer.concat(chunks))))
  }
}

function headProblems(request, op, answer) {
  const wrong = []
  if (op && !answer.headers['x-request-id']) wrong.push('no x-request-id')
  const reset = answer.headers['ratelimit-reset']
  // SDK clients sleep this many seconds before any retry.
  if (answer.statusCode !== 429 && reset !== undefined && !(Number(reset) <= 1)) wrong.push(`ratelimit-reset is ${reset}`)
  if (request.path.startsWith('/v1/') && reset === undefined) wrong.push('no ratelimit-reset')
  return wrong
}

function bodyProblems(request, op, answer, bytes) {
  const { statusCode: status, headers } = answer
  const client = raw.has(request) ? 'raw' : 'official'
  if (request.method === 'HEAD' || status === 204 || status === 304) return []
  if (status < 400 && !op) return []
  const text = (headers['content-encoding'] === 'gzip' ? gunzipSync(bytes) : bytes).toString('utf8')
  let body
  try {
    body = JSON.parse(text)
  } catch {
    return [`the body is not JSON: ${text.slice(0, 200)}`]
  }
  if (!/^application\/json\b/.test(headers['content-type'] ?? '')) return [`content-type is ${headers['content-type']}`]
  if (op) note({ op: `${op.family} ${op.name}`, client, status })
  if (status >= 400) return errorProblems(status, body)
  return new URL(request.path, base).searchParams.has('wait') ? waitedProblems(op, status, body) : answerProblems(op, status, body)
}

// Signals carry the position to resume from as their id; a ping has none, or it would be taken for one.
function checkFrames(request, op, answer) {
  note({ op: `${op.family} ${op.name}`, client: raw.has(request) ? 'raw' : 'official', status: 200 })
  const wrong = headProblems(request, op, answer)
  if (!/^text\/event-stream\b/.test(answer.headers['content-type'] ?? '')) wrong.push(`content-type is ${answer.headers['content-type']}`)
  report(request, 200, wrong)
  const decoder = new StringDecoder('utf8')
  let rest = ''
  return (chunk) => {
    const frames = (rest + (chunk === null ? '' : decoder.write(chunk))).split('\n\n')
    rest = frames.pop()
    for (const frame of frames) report(request, 200, frameProblems(frame))
  }
}

function frameProblems(frame) {
  const fields = Object.fromEntries(frame.split('\n').map((l) => l.match(/^(\w*): ?(.*)$/s)?.slice(1) ?? ['', l]))
  if (fields.event !== undefined && fields.event !== 'message') return [`frame of event ${fields.event}`]
  if (fields.data === undefined) return fields[''] === undefined ? [] : [`frame without data: ${frame}`]
  if (fields.data === 'ping') return fields.id === undefined ? [] : ['a ping carries an id']
  if (!fields.id) return [`signal without id: ${frame}`]
  try {
    return signalProblems(JSON.parse(fields.data))
  } catch {
    return [`the signal is not JSON: ${fields.data}`]
  }
}
