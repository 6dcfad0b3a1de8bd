// node npm_ws_say.mjs < {url, protocols, headers, message} > what came back

import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import { say } from "./say.mjs";

const WebSocket = createRequire(import.meta.url)("ws");
const { url, protocols, headers, message } = JSON.parse(readFileSync(0, "utf8"));
console.log(JSON.stringify(await say(new WebSocket(url, protocols, { headers }), message)));
