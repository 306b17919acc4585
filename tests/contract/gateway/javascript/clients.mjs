// Does what one user of a JavaScript client does, and prints what came as JSON: node clients.mjs CASE URL
import { createOpenAICompatible } from '@ai-sdk/openai-compatible'
import { generateText, streamText } from 'ai'
import OpenAI from 'openai'

const [, , name, url] = process.argv
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: 'any', maxRetries: 0, timeout: 10_000 })
const messages = [{ role: 'user', content: 'Tell me a story.' }]
const provider = createOpenAICompatible({ name: 'baton', baseURL: `${url}/v1`, apiKey: 'any', includeUsage: true })
const model = provider('chat')

const cases = {
  async whole() {
    const answer = await client.chat.completions.create({ model: 'chat', messages })
    return { content: answer.choices[0].message.content, reason: answer.choices[0].finish_reason, usage: answer.usage }
  },
  async streamed() {
    const stream = await client.chat.completions.create({
      model: 'chat', messages, stream: true, stream_options: { include_usage: true },
    })
    let content = '', reason = null, usage = null, roles = 0
    for await (const chunk of stream) {
      const choice = chunk.choices[0]
      content += choice?.delta.content ?? ''
      roles += choice?.delta.role ? 1 : 0
      reason = choice?.finish_reason ?? reason
      usage = chunk.usage ?? usage
    }
    return { content, reason, usage, roles }
  },
  async left() {
    const stream = await client.chat.completions.create({ model: 'chat', messages, stream: true })
    for await (const chunk of stream) if (chunk.choices[0]?.delta.content) break
    stream.controller.abort()
    return {}
  },
  async refused() {
    try {
      await client.chat.completions.create({ model: 'nothing-here', messages })
    } catch (error) {
      return { status: error.status, code: error.code, type: error.constructor.name, id: error.requestID ?? null }
    }
    return { status: 200 }
  },
  async failed() {
    let content = ''
    try {
      const stream = await client.chat.completions.create({ model: 'chat', messages, stream: true })
      for await (const chunk of stream) content += chunk.choices[0]?.delta.content ?? ''
    } catch (error) {
      return { content, error: error.message, type: error.constructor.name }
    }
    return { content, error: null }
  },
  async responses() {
    const stream = await client.responses.create({ model: 'chat', input: 'Tell me a story.', stream: true })
    let content = ''
    const kinds = []
    for await (const event of stream) {
      kinds.push(event.type)
      content += event.type === 'response.output_text.delta' ? event.delta : ''
    }
    return { content, first: kinds[0], last: kinds.at(-1) }
  },
  async models() {
    const found = []
    for await (const one of client.models.list()) found.push(one.id)
    return { found }
  },
  async ai_sdk_whole() {
    const answer = await generateText({ model, prompt: 'Tell me a story.', maxRetries: 0 })
    return { content: answer.text, reason: answer.finishReason, usage: answer.usage }
  },
  async ai_sdk_streamed() {
    const answer = streamText({ model, prompt: 'Tell me a story.', maxRetries: 0 })
    let content = ''
    for await (const piece of answer.textStream) content += piece
    return { content, reason: await answer.finishReason, usage: await answer.usage }
  },
}

console.log(JSON.stringify(await cases[name]()))
