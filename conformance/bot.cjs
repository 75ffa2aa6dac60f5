// A bot on the official SDK, driven by the text of a message. It tells its parent process what it handles and whether two
// handlers of one conversation ever overlapped. Environment: BP_API_URL, BP_TOKEN, PORT (0 picks a free one).
const sdk = require('@botpress/sdk')

const tell = (what) => process.send?.(what)
const bot = new sdk.Bot({
  actions: {
    add: async ({ input }) => {
      if (input.a < 0) throw new sdk.RuntimeError('no negative numbers')
      return { sum: input.wrong ? 'much' : input.a + input.b }
    },
  },
  plugins: {},
  register: async () => tell({ kind: 'register' }),
})

const commands = {
  act: ({ client, conversation }) =>
    client.callAction({ type: 'chat:sendEvent', input: { conversationId: conversation.id, payload: { from: 'bot' } } }),
  count: async ({ client, conversation, say }) => {
    const key = { type: 'conversation', id: conversation.id, name: 'counter' }
    const { state } = await client.getOrSetState({ ...key, payload: { n: 0 } })
    const n = state.payload.n + 1
    await client.setState({ ...key, payload: { n } })
    await say({ text: `count ${n}` })
  },
  throw: async () => {
    throw new Error('this handler always fails')
  },
  refuse: async () => {
    throw new sdk.RuntimeError('the bot says no')
  },
  // 60 pieces as fast as they come, some twice and without waiting for one before the next, then the message.
  stream: async ({ client, conversation, message, say }) => {
    const streamId = message.id
    const words = Array.from({ length: 60 }, (_, n) => `word ${n} `)
    const publish = (signal) => client.callAction({ type: 'chat:publishMessageStream', input: { conversationId: conversation.id, signal } })
    const delta = (n) => publish({ type: 'delta', streamId, sequence: n, delta: words[n], createdAt: message.createdAt })
    await delta(0)
    const sent = []
    for (let n = 1; n < words.length; n++) {
      sent.push(delta(n))
      if (n % 7 === 0) sent.push(delta(n))
      await new Promise((resolve) => setTimeout(resolve, 10))
    }
    await Promise.all(sent)
    await say({ text: words.join(''), metadata: { streamId } })
    await delta(3)
  },
  falter: async ({ client, conversation, message }) => {
    const publish = (signal) => client.callAction({ type: 'chat:publishMessageStream', input: { conversationId: conversation.id, signal } })
    await publish({ type: 'delta', streamId: message.id, sequence: 0, delta: 'I', createdAt: message.createdAt })
    await publish({ type: 'abort', streamId: message.id })
  },
  twice: async ({ say }) => {
    await say({ text: 'one' })
    await say({ text: 'two' })
  },
  metadata: ({ say, message }) => say({ text: 'with metadata', metadata: message.payload.metadata }),
  bloc: ({ say }) =>
    say(
      {
        items: [
          { type: 'text', payload: { text: 'first' } },
          { type: 'image', payload: { imageUrl: 'https://example.org/a.png' } },
          { type: 'file', payload: { fileUrl: 'https://example.org/a.pdf', title: 'A' } },
        ],
      },
      'bloc',
    ),
  carousel: ({ say }) =>
    say({ items: [{ title: 'Card', actions: [{ action: 'say', label: 'Hi', value: 'hi' }] }] }, 'carousel'),
  context: ({ say, ctx, conversation, user, message }) =>
    say({
      text: JSON.stringify({
        botId: ctx.botId,
        channel: conversation.channel,
        integration: conversation.integration,
        conversationTags: conversation.tags,
        userTags: user.tags,
        messageTags: message.tags,
        direction: message.direction,
      }),
    }),
  impostor: ({ client, conversation, user }) =>
    client.createMessage({ conversationId: conversation.id, userId: user.id, type: 'text', tags: {}, payload: { text: 'x' } }),
}

const running = new Map()

bot.on.message('*', async (props) => {
  const { message, conversation, client, ctx } = props
  const text = message.payload.text ?? message.type
  const overlap = running.has(conversation.id)
  running.set(conversation.id, message.id)
  tell({ kind: 'message', id: message.id, text, conversationId: conversation.id, type: message.type, payload: message.payload, overlap })
  const say = (payload, type = 'text') =>
    client.createMessage({ conversationId: conversation.id, userId: ctx.botId, type, tags: {}, payload })
  try {
    if (commands[text]) await commands[text]({ ...props, say })
    else await say({ text: `You said: ${text}` })
  } finally {
    running.delete(conversation.id)
  }
})

bot.on.event('chat:custom', async ({ event, client }) => {
  tell({ kind: 'event', type: event.type, payload: event.payload, conversationId: event.conversationId })
  await client.callAction({ type: 'chat:sendEvent', input: { conversationId: event.conversationId, payload: event.payload.payload } })
})

bot.on.event('timely', async ({ event }) => tell({ kind: 'timely', id: event.id, payload: event.payload, at: Date.now() }))
bot.on.stateExpired('*', async ({ state }) => tell({ kind: 'expired', state, at: Date.now() }))

const hear = (what) => async (props) => {
  const { workflow, event, conversation, user } = props
  tell({ kind: 'workflow', what, id: workflow.id, status: workflow.status, of: event.workflowId, conversation: conversation?.id, user: user?.id, inConversation: event.conversationId })
  await work[workflow.name]?.[what]?.(props)
}
// What the workflows do, by name.
const work = {
  rounds: {
    start: ({ workflow }) => workflow.acknowledgeStartOfProcessing(),
    continue: async ({ workflow, client }) => {
      const key = { type: 'workflow', id: workflow.id, name: 'progress' }
      const { state } = await client.getOrSetState({ ...key, payload: { n: 0 } })
      const n = state.payload.n + 1
      await client.setState({ ...key, payload: { n } })
      if (n === workflow.input.rounds) await workflow.setCompleted({ output: { n } })
    },
  },
  listens: {
    start: ({ workflow, client }) => client.updateWorkflow({ id: workflow.id, status: 'listening' }),
    continue: ({ workflow }) => workflow.setCompleted({ output: { heard: true } }),
  },
  late: { timeout: ({ workflow }) => workflow.setFailed({ failureReason: 'no time left' }) },
  stumbles: {
    start: async ({ workflow }) => {
      await workflow.acknowledgeStartOfProcessing()
      throw new Error('this handler fails after it has acknowledged')
    },
    continue: ({ workflow }) => workflow.setCompleted(),
  },
}
for (const name of Object.keys(work)) {
  bot.on.workflowStart(name, hear('start'))
  bot.on.workflowContinue(name, hear('continue'))
  bot.on.workflowTimeout(name, hear('timeout'))
}

bot.start(Number(process.env.PORT ?? 0)).then((server) => {
  const ready = () => tell({ kind: 'ready', port: server.address().port })
  if (server.listening) ready()
  else server.once('listening', ready)
})
process.on('disconnect', () => process.exit())
