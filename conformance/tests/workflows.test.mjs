// Workflows and tasks, through the official client and with a bot on the official SDK.
import assert from 'node:assert/strict'
import { after, before } from 'node:test'
import { startBot } from '../lib/bot.mjs'
import { fromBot, makeBot, raw, rejects, talk, test, until } from '../lib/parley.mjs'

let program
let bot
let other
before(async () => {
  program = await startBot()
  bot = await makeBot({ url: program.url })
  other = await makeBot()
})
after(() => program?.stop())

const soon = (ms) => new Date(Date.now() + ms).toISOString()
const heard = (id) => program.all.filter((m) => m.kind === 'workflow' && m.id === id)
const ended = (id, client = bot.client) =>
  until(async () => {
    const { workflow } = await client.getWorkflow({ id })
    return ['completed', 'failed', 'cancelled', 'timedout'].includes(workflow.status) && workflow
  }, 'end of the workflow')
const told = async (client, workflowId) => {
  const { events } = await client.listEvents({ workflowId })
  return events.reverse().map((e) => [e.type, e.payload.type, e.payload.childWorkflow?.name])
}

test('createWorkflow, getWorkflow, updateWorkflow, listWorkflows, deleteWorkflow', async () => {
  const { client } = other
  const { workflow } = await client.createWorkflow({ name: 'sync', status: 'listening', input: { a: [1, null] }, tags: { key: 'k' } })
  assert.match(workflow.id, /^wrkflow_/)
  assert.deepEqual([workflow.status, workflow.input, workflow.output, workflow.tags], ['listening', { a: [1, null] }, {}, { key: 'k' }])
  assert.equal(Date.parse(workflow.timeoutAt) - Date.parse(workflow.createdAt), 300_000)
  assert.deepEqual((await client.getWorkflow({ id: workflow.id })).workflow, workflow)
  const timeoutAt = '2031-05-06T07:08:09.123Z'
  const changed = (await client.updateWorkflow({ id: workflow.id, tags: { key: '', stage: '2' }, output: { b: 1 }, timeoutAt })).workflow
  assert.deepEqual([changed.tags, changed.output, changed.timeoutAt], [{ stage: '2' }, { b: 1 }, timeoutAt])
  const child = (await client.createWorkflow({ name: 'sync', status: 'pending', parentWorkflowId: workflow.id })).workflow
  const ids = async (args) => (await client.listWorkflows(args)).workflows.map((w) => w.id)
  assert.deepEqual(await ids({ tags: { stage: '2' } }), [workflow.id])
  assert.deepEqual(await ids({ parentWorkflowId: workflow.id, statuses: ['pending', 'failed'] }), [child.id])
  assert.deepEqual(await ids({ name: 'sync' }), [child.id, workflow.id])
  await client.deleteWorkflow({ id: child.id })
  await rejects(client.getWorkflow({ id: child.id }), 'ResourceNotFound')
})

test('lists page in twenties to the end', async () => {
  const { client } = await makeBot()
  for (let i = 0; i < 45; i++) await client.createWorkflow({ name: `w${i}`, status: 'listening' })
  const names = []
  for await (const w of client.list.workflows({})) names.push(w.name)
  assert.deepEqual(names, Array.from({ length: 45 }, (_, i) => `w${44 - i}`))
})

test('what cannot be is refused', async () => {
  const { client } = other
  const { workflow } = await client.createWorkflow({ name: 'w', status: 'listening' })
  const foreign = (await bot.client.createWorkflow({ name: 'w', status: 'listening' })).workflow
  await rejects(client.createWorkflow({ name: '', status: 'pending' }), 'InvalidPayload', /name/)
  await rejects(client.createWorkflow({ name: 'w', status: 'in_progress' }), 'InvalidPayload', /eventId is required/)
  await rejects(client.updateWorkflow({ id: workflow.id, status: 'in_progress' }), 'InvalidPayload', /eventId is required/)
  await rejects(client.createWorkflow({ name: 'w', status: 'pending', parentWorkflowId: foreign.id }), 'ReferenceNotFound')
  await rejects(client.createWorkflow({ name: 'w', status: 'pending', timeoutAt: soon(4e11) }), 'InvalidPayload', /ten years/)
  await rejects(client.updateWorkflow({ id: foreign.id, status: 'cancelled' }), 'ResourceNotFound')
  await rejects(client.createEvent({ type: 'x', payload: {}, workflowId: foreign.id }), 'ReferenceNotFound')
  await rejects(other.integration.createWorkflow({ name: 'w', status: 'pending' }), 'Forbidden', /belong to the bot/)
  // Nobody can be their own parent: who is whose is decided once and for all.
  const { status, body } = await raw('PUT', `/v1/chat/workflows/${workflow.id}`, { headers: { 'x-bot-id': other.id }, body: { parentWorkflowId: workflow.id } })
  assert.deepEqual([status, body.type], [400, 'InvalidPayload'])
  await client.updateWorkflow({ id: workflow.id, status: 'completed' })
  await client.updateWorkflow({ id: workflow.id, status: 'completed' })
  await rejects(client.updateWorkflow({ id: workflow.id, status: 'cancelled' }), 'InvalidPayload', /is completed, which is final/)
})

test('getOrCreateWorkflow makes one of twenty twins, by tags and by group of statuses', async () => {
  const { client } = other
  const twins = (more) =>
    Promise.all(Array.from({ length: 20 }, (_, i) => client.getOrCreateWorkflow({ name: 'twin', status: 'listening', tags: { key: 'k', nr: `${i}` }, ...more })))
  const made = (answers) => new Set(answers.map((a) => a.workflow.id))
  const first = made(await twins({ discriminateByTags: ['key'] }))
  assert.equal(first.size, 1)
  assert.equal(made(await twins({})).size, 20)
  await client.updateWorkflow({ id: [...first][0], status: 'cancelled' })
  const plain = { name: 'plain', status: 'listening', discriminateByStatusGroup: 'active' }
  const one = (await client.getOrCreateWorkflow(plain)).workflow
  assert.equal((await client.getOrCreateWorkflow(plain)).workflow.id, one.id)
  await client.updateWorkflow({ id: one.id, status: 'failed', failureReason: 'x' })
  assert.notEqual((await client.getOrCreateWorkflow(plain)).workflow.id, one.id)
  assert.equal((await client.getOrCreateWorkflow({ ...plain, discriminateByStatusGroup: 'finished' })).workflow.id, one.id)
})

test('an SDK bot is told to start, goes on until it is done, and its chat does not wait', async () => {
  const t = await talk(bot.chatUrl)
  const { workflow } = await bot.client.createWorkflow({ name: 'rounds', status: 'pending', input: { rounds: 5 }, conversationId: t.id })
  await t.say('meanwhile')
  await t.signals.wait(fromBot)
  const end = await ended(workflow.id)
  assert.deepEqual([end.status, end.output], ['completed', { n: 5 }])
  assert.ok(end.completedAt >= end.createdAt)
  await until(() => heard(workflow.id).length > 5, 'word of all rounds')
  const all = heard(workflow.id)
  assert.deepEqual(all.map((m) => m.what), ['start', ...Array(5).fill('continue')])
  assert.deepEqual(all.map((m) => m.status), ['pending', ...Array(5).fill('in_progress')])
  for (const m of all) assert.deepEqual([m.of, m.conversation, m.inConversation], [workflow.id, t.id, undefined])
  assert.deepEqual((await bot.client.getState({ type: 'workflow', id: workflow.id, name: 'progress' })).state.payload, { n: 5 })
  await t.close()
})

test('a workflow that listens goes on when an event for it was handled', async () => {
  const { workflow } = await bot.client.createWorkflow({ name: 'listens', status: 'pending' })
  await until(async () => (await bot.client.getWorkflow({ id: workflow.id })).workflow.status === 'listening', 'listening')
  await bot.client.createEvent({ type: 'answer', payload: {}, workflowId: workflow.id })
  assert.deepEqual((await ended(workflow.id)).output, { heard: true })
  // What the bot says of itself comes over another channel than what it does.
  await until(() => heard(workflow.id).length > 1, 'word of both')
  assert.deepEqual(heard(workflow.id).map((m) => m.what), ['start', 'continue'])
})

test('a workflow times out at its time, and its bot says what that means', async () => {
  const { workflow } = await bot.client.createWorkflow({ name: 'late', status: 'listening', timeoutAt: soon(300) })
  const end = await ended(workflow.id)
  assert.ok(Date.parse(end.updatedAt) >= Date.parse(workflow.timeoutAt))
  await until(() => heard(workflow.id).length === 1, 'word of the timeout')
  const failed = await until(async () => {
    const { workflow: w } = await bot.client.getWorkflow({ id: workflow.id })
    return w.status === 'failed' && w
  }, 'failure')
  assert.equal(failed.failureReason, 'no time left')
})

test('a handler that fails is told to go on a moment later', async () => {
  const { workflow } = await bot.client.createWorkflow({ name: 'stumbles', status: 'pending' })
  assert.equal((await ended(workflow.id)).status, 'completed')
  const { events } = await bot.client.listEvents({ workflowId: workflow.id })
  assert.deepEqual(events.map((e) => e.status).reverse()[0], 'failed')
})

test('a parent learns of its children', async () => {
  const { client } = bot
  const parent = (await client.createWorkflow({ name: 'parent', status: 'listening' })).workflow
  await client.updateWorkflow({ id: parent.id, status: 'paused' })
  const child = async (name) => (await client.createWorkflow({ name, status: 'listening', parentWorkflowId: parent.id })).workflow.id
  await client.updateWorkflow({ id: await child('one'), status: 'completed' })
  await client.deleteWorkflow({ id: await child('two') })
  assert.deepEqual(await told(client, parent.id), [
    ['workflow_update', 'child_workflow_finished', 'one'],
    ['workflow_update', 'child_workflow_deleted', 'two'],
  ])
})

test('createTask, getTask, updateTask, listTasks, deleteTask', async () => {
  const { client } = other
  const { conversation } = await other.integration.createConversation({ channel: 'channel', tags: {} })
  const { task } = await client.createTask({ type: 'call', conversationId: conversation.id, title: 'Call back', data: { phone: '1' }, tags: { key: 'k' } })
  assert.match(task.id, /^task_/)
  assert.deepEqual([task.status, task.title, task.description, task.data], ['pending', 'Call back', '', { phone: '1' }])
  assert.deepEqual((await client.getTask({ id: task.id })).task, task)
  const changed = (await client.updateTask({ id: task.id, status: 'in_progress', description: 'D', tags: { key: '' } })).task
  assert.deepEqual([changed.status, changed.description, changed.tags], ['in_progress', 'D', {}])
  const sub = (await client.createTask({ type: 'call', conversationId: conversation.id, parentTaskId: task.id, timeoutAt: soon(-1000) })).task
  await until(async () => (await client.getTask({ id: sub.id })).task.status === 'timeout', 'timeout')
  const ids = async (args) => (await client.listTasks(args)).tasks.map((t) => t.id)
  assert.deepEqual(await ids({ conversationId: conversation.id, status: ['in_progress'] }), [task.id])
  assert.deepEqual(await ids({ parentTaskId: task.id }), [sub.id])
  await rejects(client.updateTask({ id: sub.id, status: 'pending' }), 'InvalidPayload', /final/)
  await rejects(client.createTask({ type: 'call' }), 'InvalidPayload', /conversationId/)
  await rejects(other.integration.getTask({ id: task.id }), 'Forbidden')
  assert.equal((await client.updateConversation({ id: conversation.id, currentTaskId: task.id })).conversation.currentTaskId, task.id)
  await client.setState({ type: 'task', id: task.id, name: 'notes', payload: { n: 1 } })
  await client.deleteTask({ id: task.id })
  await rejects(client.getTask({ id: task.id }), 'ResourceNotFound')
  await rejects(client.getState({ type: 'task', id: task.id, name: 'notes' }), 'ResourceNotFound')
})
