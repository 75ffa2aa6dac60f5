// An endpoint of somebody's own backend: it keeps every request and answers as it is told.
import http from 'node:http'
import { mailbox } from './parley.mjs'

// sink answers each request with the status that answer gives for it, 200 by default, or with {status, body}.
export async function sink(answer = () => 200) {
  const box = mailbox()
  const server = http.createServer((request, response) => {
    const chunks = []
    request.on('data', (c) => chunks.push(c))
    request.on('end', () => {
      const text = Buffer.concat(chunks).toString('utf8')
      const got = { method: request.method, path: request.url, headers: request.headers, text, body: JSON.parse(text) }
      const given = answer(got)
      const { status, body } = typeof given === 'number' ? { status: given } : given
      response.writeHead(status).end(body && JSON.stringify(body))
      box.put(got)
    })
  })
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve))
  const close = () => new Promise((resolve) => server.close(resolve).closeAllConnections())
  return { ...box, url: `http://127.0.0.1:${server.address().port}/replies`, next: (what = 'request') => box.wait(() => true, what), close }
}
