// An SDK bot as a process of its own.
import { fork } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { env, mailbox, within } from './parley.mjs'

const program = fileURLToPath(new URL('../bot.cjs', import.meta.url))
const recorder = new URL('./record.mjs', import.meta.url).href

// startBot runs bot.cjs; port 0 picks a free one. Its answers from Parley are checked like those of the suite.
export async function startBot(port = 0) {
  const told = mailbox()
  const child = fork(program, {
    execArgv: ['--import', recorder],
    env: { ...process.env, BP_API_URL: env.BP_API_URL, BP_TOKEN: env.BP_TOKEN, PORT: String(port) },
    stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
  })
  child.on('message', (m) => told.put(m))
  const exited = new Promise((resolve) => child.on('exit', resolve))
  const stop = () => {
    child.kill('SIGKILL')
    return within(exited, 'end of the bot process')
  }
  const ready = await told.wait((m) => m.kind === 'ready', 'bot process', 20_000)
  return {
    ...told,
    port: ready.port,
    url: `http://127.0.0.1:${ready.port}`,
    messages: () => told.all.filter((m) => m.kind === 'message'),
    stop,
  }
}
