// An integration on the official SDK: a channel that is fed over its webhook. It tells its parent process what it is asked.
// Environment: BP_API_URL, BP_TOKEN, PORT (0 picks a free one).
const sdk = require('@botpress/sdk')

const tell = (what) => process.send?.(what)

const integration = new sdk.Integration({
  register: async ({ webhookUrl, client, ctx }) => {
    tell({ kind: 'register', webhookUrl, configuration: ctx.configuration, alias: ctx.integrationAlias })
    if (ctx.configuration.apiKey === 'refused') throw new sdk.RuntimeError('the key is refused')
    await client.configureIntegration({ identifier: `team-${ctx.configuration.apiKey}` })
  },
  unregister: async ({ webhookUrl, ctx }) => tell({ kind: 'unregister', webhookUrl, alias: ctx.integrationAlias }),
  actions: {
    ping: async ({ input, ctx }) => {
      tell({ kind: 'action', input })
      if (input.fail) throw new sdk.RuntimeError('nope')
      if (input.wrong) return { pong: 'not a number', alias: ctx.integrationAlias }
      return { pong: input.n, alias: ctx.integrationAlias }
    },
    now: async () => {
      tell({ kind: 'now' })
      return { at: Date.now() }
    },
  },
  channels: {
    channel: {
      messages: {
        text: async ({ payload, message, conversation, user, ack, ctx }) => {
          tell({ kind: 'out', text: payload.text, messageId: message.id, conversation, user, alias: ctx.integrationAlias })
          await ack({ tags: { id: `ext-${message.id}` } })
        },
      },
    },
  },
  handler: async ({ req, client, ctx }) => {
    tell({ kind: 'webhook', req, alias: ctx.integrationAlias })
    if (req.path === '/plain') return { status: 202, headers: { 'content-type': 'text/plain', 'x-foo': 'bar' }, body: `${req.method} ok!` }
    if (req.path === '/throw') throw new Error('the handler fails')
    if (!req.body) return
    const d = JSON.parse(req.body)
    const { conversation } = await client.getOrCreateConversation({ channel: 'channel', tags: { id: d.conversationId } })
    const { user } = await client.getOrCreateUser({ tags: { id: d.userId }, name: 'Bob' })
    const { message } = await client.createMessage({
      type: 'text',
      conversationId: conversation.id,
      userId: user.id,
      payload: { text: d.text },
      tags: { id: d.messageId },
    })
    await client.createEvent({ type: 'received', payload: { a: 1 }, conversationId: conversation.id, userId: user.id })
    return { body: JSON.stringify({ message, user, conversation }) }
  },
})

integration.start(Number(process.env.PORT ?? 0)).then((server) => {
  const ready = () => tell({ kind: 'ready', port: server.address().port })
  if (server.listening) ready()
  else server.once('listening', ready)
})
process.on('disconnect', () => process.exit())
