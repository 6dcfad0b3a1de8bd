// node aimock.cjs < one line, a list of fixtures, then nothing until it may end > its URL

const { LLMock } = require("@copilotkit/aimock");

require("node:readline")
  .createInterface({ input: process.stdin })
  .once("line", async (fixtures) => {
    const mock = new LLMock({ port: 0, chunkSize: 7, latency: 2 });
    mock.addFixturesFromJSON(JSON.parse(fixtures));
    await mock.start();
    console.log(mock.url);
  })
  .once("close", () => process.exit());
