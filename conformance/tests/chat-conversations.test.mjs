// Conversations, participants and who may do what, with the official chat client.
import assert from 'node:assert/strict'
import { chat, chatUrl, collect, fresh, fromUser, listen, ofType, rejects, test, within } from '../lib/parley.mjs'

const person = (userId) => chat.Client.connect({ apiUrl: chatUrl, userId })
const text = (text) => ({ payload: { type: 'text', text } })

// pair is an owner with a conversation, and a guest who is not in it.
async function pair() {
  const [owner, guest] = await Promise.all([person(), person()])
  const { conversation } = await owner.createConversation({})
  return { owner, guest, id: conversation.id, conversation }
}

test('createConversation makes its caller owner and participant', async () => {
  const { owner, id, conversation } = await pair()
  assert.match(id, /^conv_[0-9A-Z]{26}$/)
  assert.deepEqual((await owner.getConversation({ id })).conversation, conversation)
  const { participants } = await owner.listParticipants({ conversationId: id })
  const { key, ...user } = owner.user
  assert.deepEqual(participants, [user])
  assert.deepEqual((await owner.getParticipant({ conversationId: id, userId: user.id })).participant, user)
})

test('a conversation has the id its owner chose', async () => {
  const owner = await person()
  const id = fresh('conv')
  assert.equal((await owner.createConversation({ id })).conversation.id, id)
  assert.equal((await owner.getConversation({ id })).conversation.id, id)
  const { message } = await owner.createMessage({ conversationId: id, ...text('hi') })
  assert.equal(message.conversationId, id)
  assert.equal((await owner.listMessages({ conversationId: id })).messages.at(-1).conversationId, id)
  await rejects(owner.createConversation({ id }), 'AlreadyExists')
})

test('ids of the wrong form are InvalidPayload', async () => {
  const owner = await person()
  for (const id of ['no+plus', 'x'.repeat(71), '']) {
    await rejects(owner.createConversation({ id }), 'InvalidPayload')
    await rejects(owner.getOrCreateConversation({ id }), 'InvalidPayload')
  }
})

test('getOrCreateConversation creates once, also for twenty twins', async () => {
  const owner = await person()
  const id = fresh('conv')
  const made = await Promise.all(Array.from({ length: 20 }, () => owner.getOrCreateConversation({ id })))
  for (const { conversation } of made) assert.deepEqual(conversation, made[0].conversation)
  assert.deepEqual((await owner.getConversation({ id })).conversation, made[0].conversation)
})

test('getOrCreateConversation of another owner is Forbidden', async () => {
  const [owner, other] = await Promise.all([person(), person()])
  const id = fresh('conv')
  await owner.getOrCreateConversation({ id })
  await rejects(other.getOrCreateConversation({ id }), 'Forbidden')
})

test('getOrCreateConversation takes a real id for what it is', async () => {
  const { owner, id, conversation } = await pair()
  assert.deepEqual((await owner.getOrCreateConversation({ id })).conversation, conversation)
})

test('listConversations lists what its caller owns, newest first, in pages of twenty', async () => {
  const { owner, guest, id } = await pair()
  const mine = [id]
  for (let i = 0; i < 22; i++) mine.unshift((await owner.createConversation({})).conversation.id)
  const invited = (await guest.createConversation({})).conversation.id
  await guest.addParticipant({ conversationId: invited, userId: owner.user.id })
  const { items, sizes } = await collect((a) => owner.listConversations(a), 'conversations')
  assert.deepEqual(items.map((c) => c.id), mine)
  assert.deepEqual(sizes, [20, 3])
  assert.equal((await owner.list.conversations({}).collect()).length, 23)
})

test('a page token of another list is refused', async () => {
  const owner = await person()
  for (let i = 0; i < 21; i++) await owner.createConversation({})
  const { meta, conversations } = await owner.listConversations({})
  assert.ok(meta.nextToken)
  for (const nextToken of ['nonsense', meta.nextToken + 'x', 'eyJhIjoxfQ==']) {
    const e = await owner.listConversations({ nextToken }).then(() => null, (e) => e)
    assert.ok(['InvalidPayload', 'InvalidQuery'].includes(e?.type), `${nextToken}: ${e}`)
  }
  await assert.rejects(owner.listMessages({ conversationId: conversations[0].id, nextToken: meta.nextToken }))
})

test('who is not in a conversation may do nothing in it', async () => {
  const { owner, guest, id } = await pair()
  const { message } = await owner.createMessage({ conversationId: id, ...text('secret') })
  const { event } = await owner.createEvent({ conversationId: id, payload: {} })
  const conversationId = id
  const forbidden = [
    () => guest.getConversation({ id }),
    () => guest.deleteConversation({ id }),
    () => guest.listMessages({ conversationId }),
    () => guest.createMessage({ conversationId, ...text('x') }),
    () => guest.createEvent({ conversationId, payload: {} }),
    () => guest.listParticipants({ conversationId }),
    () => guest.getParticipant({ conversationId, userId: owner.user.id }),
    () => guest.addParticipant({ conversationId, userId: guest.user.id }),
    () => guest.removeParticipant({ conversationId, userId: owner.user.id }),
    () => guest.getMessage({ id: message.id }),
    () => guest.deleteMessage({ id: message.id }),
    () => guest.getEvent({ id: event.id }),
  ]
  for (const [i, work] of forbidden.entries()) await rejects(work(), 'Forbidden').catch((e) => assert.fail(`${i}: ${e.message}`))
  await assert.rejects(guest.listenConversation({ id }))
})

test('what does not exist is not found', async () => {
  const { owner, id } = await pair()
  await rejects(owner.getConversation({ id: fresh('none') }), 'ResourceNotFound')
  await rejects(owner.getMessage({ id: fresh('none') }), 'ResourceNotFound')
  await rejects(owner.getEvent({ id: fresh('none') }), 'ResourceNotFound')
  await rejects(owner.getParticipant({ conversationId: id, userId: fresh('none') }), 'ResourceNotFound')
})

test('an owner adds and removes participants, and listeners hear of it', async () => {
  const { owner, guest, id } = await pair()
  const signals = await listen(owner, { id })
  const added = await owner.addParticipant({ conversationId: id, userId: guest.user.id })
  const { key, ...user } = guest.user
  assert.deepEqual(added.participant, user)
  const heard = await signals.wait(ofType('participant_added'))
  assert.deepEqual(heard.data, { conversationId: id, participantId: user.id })

  await guest.createMessage({ conversationId: id, ...text('I am in') })
  const { data } = await signals.wait(fromUser)
  assert.equal(data.userId, user.id)
  assert.equal((await owner.listParticipants({ conversationId: id })).participants.length, 2)
  assert.equal((await guest.listParticipants({ conversationId: id })).participants.length, 2)
  await rejects(guest.removeParticipant({ conversationId: id, userId: owner.user.id }), 'Forbidden')
  await rejects(guest.deleteConversation({ id }), 'Forbidden')

  await owner.removeParticipant({ conversationId: id, userId: user.id })
  const gone = await signals.wait(ofType('participant_removed'))
  assert.deepEqual(gone.data, { conversationId: id, participantId: user.id })
  await rejects(guest.createMessage({ conversationId: id, ...text('still?') }), 'Forbidden')
  await signals.close()
})

test('participants carry the ids they chose', async () => {
  const [ownerId, guestId, id] = [fresh('owner'), fresh('guest'), fresh('conv')]
  const [owner, guest] = await Promise.all([person(ownerId), person(guestId)])
  await owner.createConversation({ id })
  const signals = await listen(owner, { id })
  await owner.addParticipant({ conversationId: id, userId: guestId })
  assert.deepEqual((await signals.wait(ofType('participant_added'))).data, { conversationId: id, participantId: guestId })
  assert.equal((await owner.getParticipant({ conversationId: id, userId: guestId })).participant.id, guestId)
  await owner.removeParticipant({ conversationId: id, userId: guestId })
  assert.deepEqual((await signals.wait(ofType('participant_removed'))).data, { conversationId: id, participantId: guestId })
  await signals.close()
})

test('the stream of a removed participant ends, the others go on', async () => {
  const { owner, guest, id } = await pair()
  await owner.addParticipant({ conversationId: id, userId: guest.user.id })
  const [hers, his] = await Promise.all([listen(owner, { id }), listen(guest, { id })])
  await owner.createMessage({ conversationId: id, ...text('both hear') })
  await Promise.all([hers.wait(fromUser), his.wait(fromUser)])
  await owner.removeParticipant({ conversationId: id, userId: guest.user.id })
  await within(his.ended, 'end of the stream of the removed participant')
  await owner.createMessage({ conversationId: id, ...text('one hears') })
  assert.equal((await hers.wait(fromUser)).data.payload.text, 'one hears')
  assert.equal(his.all.filter(fromUser).length, 1)
  await hers.close()
})

test('the owner can not be removed', async () => {
  const { owner, id } = await pair()
  await rejects(owner.removeParticipant({ conversationId: id, userId: owner.user.id }), 'InvalidPayload')
  assert.equal((await owner.listParticipants({ conversationId: id })).participants.length, 1)
})

test('a deleted conversation is gone and its streams end', async () => {
  const { owner, id } = await pair()
  const { message } = await owner.createMessage({ conversationId: id, ...text('last words') })
  const signals = await listen(owner, { id })
  await owner.deleteConversation({ id })
  await within(signals.ended, 'end of the stream')
  await assert.rejects(owner.getConversation({ id }))
  await assert.rejects(owner.getMessage({ id: message.id }))
  assert.equal((await owner.listConversations({})).conversations.length, 0)
})

test('the stream of a deleted user ends', async () => {
  const { owner, guest, id } = await pair()
  await owner.addParticipant({ conversationId: id, userId: guest.user.id })
  const signals = await listen(guest, { id })
  await guest.deleteUser({})
  await within(signals.ended, 'end of the stream')
})
