// The WebSocket form of listening: the key travels as a query parameter, a frame is one signal.
import assert from 'node:assert/strict'
import WebSocket from 'ws'
import { chat, chatUrl, fresh, fromBot, fromUser, mailbox, ofType, talk, test, until, within } from '../lib/parley.mjs'
import { signalProblems } from '../lib/spec.mjs'

// connect opens a socket on a conversation's listen address and keeps what it hears.
async function connect(id, key, query = '') {
  const url = `${chatUrl.replace(/^http/, 'ws')}/conversations/${encodeURIComponent(id)}/listen?x-user-key=${encodeURIComponent(key)}${query}`
  const socket = new WebSocket(url)
  const box = mailbox()
  socket.on('message', (data) => {
    const text = data.toString()
    if (text === 'ping') return
    const signal = JSON.parse(text)
    assert.deepEqual(signalProblems(signal), [])
    box.put(signal)
  })
  const closed = new Promise((resolve) => socket.on('close', (code, reason) => resolve({ code, reason: reason.toString() })))
  await new Promise((resolve, reject) => {
    socket.on('open', resolve)
    socket.on('error', reject)
    socket.on('unexpected-response', (request, answer) => {
      answer.resume()
      reject(Object.assign(new Error(`status ${answer.statusCode}`), { status: answer.statusCode }))
    })
  })
  return { ...box, closed, close: () => socket.close() }
}

const refused = (work, status) => assert.rejects(work, (e) => e.status === status || assert.fail(`want ${status}, got ${e.status ?? e.message}`))

test('a socket hears what the stream hears', async () => {
  const { client, id, signals, say, close } = await talk()
  const socket = await connect(id, client.user.key)
  await say('over the socket')
  await Promise.all([socket.wait(fromBot), signals.wait(fromBot)])
  assert.deepEqual(socket.all, signals.all)
  socket.close()
  await within(socket.closed, 'close')
  await close()
})

test('a socket that comes back with its position misses nothing', async () => {
  const { client, id, say, signals, close } = await talk()
  for (let i = 0; i < 5; i++) await say(`m${i}`)
  await until(() => signals.all.length === 10, 'five turns')
  const socket = await connect(id, client.user.key, '&after=0')
  await until(() => socket.all.length === 10, 'all of it again')
  assert.deepEqual(socket.all, signals.all)
  socket.close()
  await close()
})

test('a socket closes when its participant is removed', async () => {
  const { client, id, close } = await talk()
  const guest = await chat.Client.connect({ apiUrl: chatUrl })
  await client.addParticipant({ conversationId: id, userId: guest.user.id })
  const socket = await connect(id, guest.user.key)
  await client.removeParticipant({ conversationId: id, userId: guest.user.id })
  await within(socket.closed, 'close')
  await close()
})

test('a socket closes when its conversation goes', async () => {
  const { client, id, signals } = await talk()
  const socket = await connect(id, client.user.key)
  await client.deleteConversation({ id })
  await within(socket.closed, 'close')
  await within(signals.ended, 'end of the stream')
})

test('sockets of strangers are refused before the upgrade', async () => {
  const { client, id, close } = await talk()
  const stranger = await chat.Client.connect({ apiUrl: chatUrl })
  await refused(connect(id, stranger.user.key), 403)
  await refused(connect(id, 'nonsense'), 401)
  await refused(connect(fresh('none'), client.user.key), 404)
  await close()
})

test('signals of every kind come over the socket', async () => {
  const { client, id, say, close } = await talk()
  const socket = await connect(id, client.user.key)
  const guest = await chat.Client.connect({ apiUrl: chatUrl })
  const sent = await say('x')
  await client.addParticipant({ conversationId: id, userId: guest.user.id })
  await client.createEvent({ conversationId: id, payload: {} })
  await client.removeParticipant({ conversationId: id, userId: guest.user.id })
  await client.deleteMessage({ id: sent.id })
  for (const type of ['participant_added', 'event_created', 'participant_removed', 'message_deleted']) await socket.wait(ofType(type), type)
  assert.ok(socket.all.some(fromUser))
  socket.close()
  await close()
})
