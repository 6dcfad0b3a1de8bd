// node npm_ws.mjs < {"url", "protocols", "headers", "turns"} > {"frames", "code", "protocol", "status"}

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { talk } from "./talk.mjs";

const WebSocket = createRequire(import.meta.url)("ws"); // import knows no NODE_PATH
const { url, protocols, headers, turns } = JSON.parse(readFileSync(0, "utf8"));

const socket = new WebSocket(url, protocols, { headers });
let status = 101;
socket.on("unexpected-response", (_request, response) => {
  status = response.statusCode;
  socket.terminate();
});
console.log(JSON.stringify({ ...(await talk(socket, turns)), status }));
