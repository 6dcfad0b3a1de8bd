// One message over any WebSocket of the kind that browsers have, and what comes back. `message` is text, or bytes in an array.

/** Resolves to the first message that came, the subprotocol, and how the socket closed. */
export function say(socket, message) {
  return new Promise((resolve) => {
    const told = { heard: null };
    socket.binaryType = "arraybuffer";
    socket.addEventListener("open", () => socket.send(typeof message === "string" ? message : Uint8Array.from(message)));
    socket.addEventListener("message", ({ data }) => {
      told.heard = typeof data === "string" ? data : [...new Uint8Array(data)];
      socket.close(1000);
    });
    socket.addEventListener("error", () => {});
    socket.addEventListener("close", ({ code }) => resolve({ ...told, code, protocol: socket.protocol }));
  });
}
