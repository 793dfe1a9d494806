// The connection: it comes back by itself, and goes on with the session it had.

const WAITS = [250, 500, 1000, 2000, 4000];

export class Link {
  constructor(hears) {
    this.hears = hears; // { welcome, message, frame, state }
    this.failures = 0;
    this.watch = new URLSearchParams(location.hash.slice(1)).get("watch");
    this.connect();
    addEventListener("online", () => this.connect());
  }

  connect() {
    if (this.socket && this.socket.readyState < WebSocket.CLOSING) return;
    const address = new URL("play", location.href);
    address.protocol = address.protocol.replace("http", "ws");
    address.hash = "";
    const socket = (this.socket = new WebSocket(address));
    socket.binaryType = "arraybuffer";
    socket.onopen = () => {
      const session = this.watch ? null : sessionStorage.getItem("session");
      this.send({ type: "hello", session, watch: this.watch });
    };
    socket.onmessage = ({ data }) => {
      if (data instanceof ArrayBuffer) this.hears.frame(...unpacked(data));
      else this.read(JSON.parse(data));
    };
    socket.onclose = () => this.lost(socket);
  }

  read(message) {
    if (message.type === "welcome") {
      this.failures = 0;
      const before = sessionStorage.getItem("session");
      if (message.session) sessionStorage.setItem("session", message.session);
      this.hears.state("on", "connected");
      this.hears.welcome(message, before !== null && before !== message.session);
    } else if (message.type === "refused") {
      this.refused = true;
      this.hears.state("off", "refused");
      this.hears.message({ type: "error", text: `${message.text} Reload to try again.` });
    } else this.hears.message(message);
  }

  async lost(socket) {
    if (socket !== this.socket || this.refused) return;
    this.hears.state("off", "reconnecting");
    const wait = WAITS[Math.min(this.failures++, WAITS.length - 1)];
    if (this.failures > 1) {
      const answer = await fetch(location.href.split("#")[0]).catch(() => null);
      if (answer && answer.status === 404) {
        this.hears.state("off", "ended");
        this.hears.message({
          type: "error",
          text: "The server was started anew with another token: open the address it shows.",
        });
        return;
      }
    }
    setTimeout(() => this.connect(), wait);
  }

  send(message) {
    if (this.socket.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(message));
  }

  seen() {
    if (this.socket.readyState === WebSocket.OPEN) this.socket.send('{"type":"seen"}');
  }

  sendBytes(bytes) {
    if (this.socket.readyState === WebSocket.OPEN) this.socket.send(bytes);
  }
}

// A frame: length of the JSON, the JSON, and RGB pixels in the order it names them.
function unpacked(buffer) {
  const length = new DataView(buffer).getUint32(0, true);
  const facts = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  const pixels = {};
  let at = 4 + length;
  for (const [side, [height, width]] of Object.entries(facts.pixels)) {
    pixels[side] = { width, height, rgb: new Uint8Array(buffer, at, 3 * height * width) };
    at += 3 * height * width;
  }
  return [facts, pixels];
}
