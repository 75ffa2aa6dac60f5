// SDK bots and integrations as processes of their own.
import { fork } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { env, mailbox, within } from './parley.mjs'

const program = (name) => fileURLToPath(new URL(`../${name}.cjs`, import.meta.url))
const recorder = new URL('./record.mjs', import.meta.url).href

// startBot runs bot.cjs and startIntegration integration.cjs; port 0 picks a free one. Their answers from Parley are checked
// like those of the suite.
export const startBot = (port) => start('bot', port)
export const startIntegration = (port) => start('integration', port)

async function start(name, port = 0) {
  const told = mailbox()
  const child = fork(program(name), {
    execArgv: ['--import', recorder],
    env: { ...process.env, BP_API_URL: env.BP_API_URL, BP_TOKEN: env.BP_TOKEN, PORT: String(port) },
    stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
  })
  child.on('message', (m) => told.put(m))
  const exited = new Promise((resolve) => child.on('exit', resolve))
  const stop = () => {
    child.kill('SIGKILL')
    return within(exited, `end of the ${name} process`)
  }
  const ready = await told.wait((m) => m.kind === 'ready', `${name} process`)
  return {
    ...told,
    port: ready.port,
    url: `http://127.0.0.1:${ready.port}`,
    messages: () => told.all.filter((m) => m.kind === 'message'),
    stop,
  }
}
