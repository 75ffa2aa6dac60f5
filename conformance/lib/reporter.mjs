// One JSON line for each case: its name as in passing.txt and whether it passed.
import { basename } from 'node:path'

export default async function* (events) {
  for await (const { type, data } of events) {
    if (type !== 'test:pass' && type !== 'test:fail') continue
    if (data.nesting > 0) continue
    // A file is a test too when it fails as a whole: it did not load, or did not end.
    const name = data.name.endsWith('.test.mjs') ? `${basename(data.name, '.test.mjs')}: (the file)` : data.name
    const error = data.details?.error
    yield JSON.stringify({ name, passed: type === 'test:pass' && !data.skip && data.todo === undefined, error: error?.cause?.message ?? error?.message }) + '\n'
  }
}
