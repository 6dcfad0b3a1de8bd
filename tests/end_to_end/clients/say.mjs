// Sends one message over a WebSocket with the API of browsers and reports what comes back. `message` is text, or bytes in an array.

/** Resolves to the first received message, the subprotocol and the close code. */
export function say(socket, message) {
  return new Promise((resolve) => {
    const result = { received: null };
    socket.binaryType = "arraybuffer";
    socket.addEventListener("open", () => socket.send(typeof message === "string" ? message : Uint8Array.from(message)));
    socket.addEventListener("message", ({ data }) => {
      result.received = typeof data === "string" ? data : [...new Uint8Array(data)];
      socket.close(1000);
    });
    socket.addEventListener("error", () => {});
    socket.addEventListener("close", ({ code }) => resolve({ ...result, code, protocol: socket.protocol }));
  });
}
