// node ai_gateway.mjs < {url, token, asks: [{models, how, options}]} > the result of each, as JSON
//
// Runs Cloudflare's own client unchanged: its requests to Cloudflare's host are sent to the bridge.

import { createRequire } from "node:module";
import { text } from "node:stream/consumers";
import { pathToFileURL } from "node:url";

const { resolve } = createRequire(import.meta.url); // import ignores NODE_PATH
const load = (name) => import(pathToFileURL(resolve(name)).href);
const { createAnthropic } = await load("@ai-sdk/anthropic");
const { createOpenAI } = await load("@ai-sdk/openai");
const { generateText, streamText } = await load("ai");
const { createAiGateway } = await load("ai-gateway-provider");
const { createUnified } = await load("ai-gateway-provider/providers/unified");

const { url, token, asks } = JSON.parse(await text(process.stdin));
const posted = [];
const realFetch = globalThis.fetch;
globalThis.fetch = async (address, init) => {
  const there = String(address).replace("https://gateway.ai.cloudflare.com", url);
  const response = await realFetch(there, init);
  posted.push(Object.fromEntries([...response.headers].filter(([name]) => name.startsWith("cf-aig-"))));
  return response;
};

const MODELS = {
  openai: () => createOpenAI({ apiKey: "key" }).chat("small"),
  responses: () => createOpenAI({ apiKey: "key" }).responses("small"),
  anthropic: () => createAnthropic({ apiKey: "key" })("small"),
  unified: () => createUnified({ apiKey: "key" })("openai/small"),
};

async function answerTo({ models, how, prompt, gateway = "gateway", key = token, options = {} }) {
  const aigateway = createAiGateway({ accountId: "account", gateway, apiKey: key, options });
  const request = { model: aigateway(models.map((name) => MODELS[name]())), prompt, maxRetries: 0 };
  try {
    if (how === "generate") {
      return { text: (await generateText(request)).text };
    }
    const pieces = [];
    const errors = [];
    const stream = streamText({ ...request, onError: ({ error }) => errors.push(error) });
    for await (const piece of stream.textStream) {
      pieces.push(piece);
    }
    if (errors.length) {
      throw errors[0];
    }
    return { text: pieces.join(""), pieces: pieces.length };
  } catch (error) {
    return { error: error.name, message: error.message, status: error.statusCode };
  }
}

const answers = [];
for (const ask of asks) {
  answers.push({ ...(await answerTo(ask)), headers: posted.pop() });
}
console.log(JSON.stringify(answers));
