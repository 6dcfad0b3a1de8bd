// node sdk_talks.cjs NAME GATEWAY: one talk of an official SDK for Node; prints what it heard, as JSON. As sdk_talks.py.

const KEY = "the-key";

async function google(gateway) {
  const { GoogleGenAI } = require("@google/genai");
  const ai = new GoogleGenAI({ apiKey: KEY, httpOptions: { baseUrl: `${gateway}/google-ai-studio` } });
  let heard = "";
  let ended;
  const done = new Promise((resolve) => (ended = resolve));
  const session = await ai.live.connect({
    model: "gemini-live",
    config: { responseModalities: ["TEXT"] },
    callbacks: {
      onmessage: ({ serverContent }) => {
        for (const part of serverContent?.modelTurn?.parts ?? []) heard += part.text ?? "";
        if (serverContent?.turnComplete) ended();
      },
    },
  });
  session.sendClientContent({ turns: [{ role: "user", parts: [{ text: "hello" }] }], turnComplete: true });
  await done;
  session.close();
  return heard;
}

const [name, gateway] = process.argv.slice(2);
({ google })[name](gateway).then((heard) => console.log(JSON.stringify(heard)));
