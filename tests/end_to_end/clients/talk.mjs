// One conversation over any WebSocket of the kind that browsers have; ws is one too. The same in talk.py.

const ENDS = new Set(["universal.done", "universal.error"]);

const isLast = (frame) => ENDS.has(frame.type) || (frame.type === "universal.created" && "response" in frame);

/** Holds the turns one after the other, then closes. Resolves to the frames in their order and how the socket closed. */
export function talk(socket, turns) {
  return new Promise((resolve) => {
    const frames = [];
    const left = [...turns];
    let turn;
    let open;

    const next = () => {
      turn = left.shift();
      if (!turn) return socket.close(1000);
      open = new Set(turn.send.map((message) => message.request.eventId));
      turn.send.forEach(send);
    };
    const send = (message) => socket.send(JSON.stringify(message));

    socket.addEventListener("open", next);
    socket.addEventListener("message", ({ data }) => {
      const frame = JSON.parse(data);
      frames.push(frame);
      if (frame.type === "universal.stream") turn.onStream.splice(0).forEach(send);
      if (isLast(frame)) open.delete(frame.metadata.eventId);
      if (open.size === 0) next();
    });
    // What failed is told to nobody by a browser, but the close that follows is.
    socket.addEventListener("error", () => {});
    socket.addEventListener("close", ({ code }) => resolve({ frames, code, protocol: socket.protocol }));
  });
}
