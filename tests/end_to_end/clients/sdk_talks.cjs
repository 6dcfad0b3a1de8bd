// node sdk_talks.cjs NAME GATEWAY: one session of an official SDK for Node; prints the text it received as JSON, like sdk_talks.py.

const KEY = "the-key";

async function google(gateway) {
  const { GoogleGenAI } = require("@google/genai");
  const ai = new GoogleGenAI({ apiKey: KEY, httpOptions: { baseUrl: `${gateway}/google-ai-studio` } });
  let text = "";
  let ended;
  const done = new Promise((resolve) => (ended = resolve));
  const session = await ai.live.connect({
    model: "gemini-live",
    config: { responseModalities: ["TEXT"] },
    callbacks: {
      onmessage: ({ serverContent }) => {
        for (const part of serverContent?.modelTurn?.parts ?? []) text += part.text ?? "";
        if (serverContent?.turnComplete) ended();
      },
    },
  });
  session.sendClientContent({ turns: [{ role: "user", parts: [{ text: "hello" }] }], turnComplete: true });
  await done;
  session.close();
  return text;
}

const [name, gateway] = process.argv.slice(2);
({ google })[name](gateway).then((text) => console.log(JSON.stringify(text)));
