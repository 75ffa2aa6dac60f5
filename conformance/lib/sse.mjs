// A plain reader of server-sent events that can be cut and resumed, as a browser's EventSource or curl would read them.
import http from 'node:http'
import { mailbox } from './parley.mjs'
import { ours } from './record.mjs'

// openStream reads url until it ends or cut is called; signals have {id, type, data}.
export async function openStream(url, { headers = {} } = {}) {
  const box = mailbox()
  let rest = ''
  let pings = 0
  const request = ours(http.get(url, { headers: { accept: 'text/event-stream', ...headers }, agent: false }))
  const answer = await new Promise((resolve, reject) => {
    request.on('response', resolve)
    request.on('error', reject)
  })
  answer.setEncoding('utf8')
  answer.on('data', (chunk) => {
    const frames = (rest + chunk).split('\n\n')
    rest = frames.pop()
    for (const frame of frames) {
      const lines = frame.split('\n')
      const field = (name) => lines.find((l) => l.startsWith(`${name}:`))?.slice(name.length + 1).trim()
      if (field('data') === 'ping') pings++
      else if (field('data')) box.put({ id: field('id'), ...JSON.parse(field('data')) })
    }
  })
  const ended = new Promise((resolve) => {
    answer.on('close', resolve)
    answer.on('error', resolve)
  })
  return {
    ...box,
    status: answer.statusCode,
    headers: answer.headers,
    ended,
    pings: () => pings,
    last: () => box.all.at(-1)?.id,
    cut() {
      request.destroy()
      return ended
    },
  }
}
