// Buttons, fields and the keys of the page itself.

const TITLES = {
  env: "Environment", data: "Recorded episode", image: "Image…", imagined: "Imagined",
};
const SHORTCUTS = { Enter: "play", ".": "step", Backspace: "reset", ",": "resync" };

export class Controls {
  constructor(link, actions) {
    this.link = link;
    this.state = {};
    const by = (id) => document.getElementById(id);
    this.parts = Object.fromEntries(
      ["play", "step", "reset", "resync", "fps", "fps-shown", "seed", "actors", "kinds", "goes-on",
        "uncertain", "episode", "episode-field", "image", "share", "record", "recorded", "film"].map((id) => [id, by(id)]),
    );
    const { play, step, reset, resync, fps, seed, episode, image, share } = this.parts;
    play.onclick = () => link.send({ type: this.state.playing ? "pause" : "play" });
    step.onclick = () => link.send({ type: "step" });
    reset.onclick = () => link.send({ type: "reset", seed: this.seed() });
    resync.onclick = () => link.send({ type: "resync" });
    fps.oninput = () => link.send({ type: "settings", fps: Number(fps.value) });
    seed.onchange = () => link.send({ type: "reset", seed: this.seed() });
    episode.onchange = () => this.start("data");
    this.parts["goes-on"].onchange = (e) => link.send({ type: "settings", goes_on: e.target.checked });
    this.parts.uncertain.onchange = (e) => link.send({ type: "settings", uncertain: e.target.checked });
    image.onchange = () => image.files[0] && this.sendImage(image.files[0]);
    share.onclick = () => this.share();
    addEventListener("keydown", (event) => this.pressed(event, actions, true));
    addEventListener("keyup", (event) => this.pressed(event, actions, false));
    document.addEventListener("click", (event) => event.target.closest("button")?.blur());
  }

  pressed(event, actions, down) {
    if (event.ctrlKey || event.metaKey || event.altKey || typing(event.target)) return;
    if (event.repeat) {
      if (actions.held.has(event.key)) event.preventDefault();
      return;
    }
    if (actions.key(event.key, down)) event.preventDefault();
    else if (down && SHORTCUTS[event.key]) {
      event.preventDefault();
      this.parts[SHORTCUTS[event.key]].click();
    }
  }

  // Every recording has a name; films can be looked at here.
  recorded({ name, film }) {
    const entry = document.createElement(film ? "button" : "span");
    entry.textContent = name;
    entry.className = "quiet";
    if (film) entry.onclick = () => this.showFilm(name);
    this.parts.recorded.prepend(entry);
    while (this.parts.recorded.children.length > 4) this.parts.recorded.lastChild.remove();
  }

  showFilm(name) {
    const dialog = this.parts.film;
    const address = new URL(`recordings/${encodeURIComponent(name)}`, location.href.split("#")[0]).href;
    const moves = !name.endsWith(".gif");
    const [video, image, link] = ["video", "img", "a"].map((tag) => dialog.querySelector(tag));
    video.hidden = !moves;
    image.hidden = moves;
    (moves ? video : image).src = address;
    link.href = address;
    dialog.onclose = () => { video.removeAttribute("src"); video.load(); };
    dialog.onclick = (event) => event.target === dialog && dialog.close();
    dialog.showModal();
    if (moves) video.play();
  }

  describe(welcome) {
    this.welcome = welcome;
    document.body.classList.toggle("watching", !welcome.plays);
    this.offer(this.parts.actors, welcome.actors.map((who) => [who, who.replaceAll("_", " ")]),
      (who) => this.link.send({ type: "control", who }));
    this.offer(this.parts.kinds, welcome.kinds.map((kind) => [kind, TITLES[kind]]),
      (kind) => this.start(kind));
    this.offer(this.parts.record, [["mp4", "MP4"], ["gif", "GIF"], ["episode", "Episode"]],
      (kind) => this.link.send({ type: "record", kind: this.state.recording === kind ? null : kind }));
    this.parts["episode-field"].hidden = !welcome.episodes;
    this.parts.episode.max = Math.max(0, welcome.episodes - 1);
    sessionStorage.setItem("watch", welcome.watch);
    this.show(welcome.state);
  }

  offer(root, entries, choose) {
    root.replaceChildren(...entries.map(([value, title]) => {
      const button = document.createElement("button");
      button.textContent = title;
      button.dataset.value = value;
      button.onclick = () => choose(value);
      return button;
    }));
  }

  show(state) {
    this.state = state;
    const { play, fps, seed, actors, kinds, record, uncertain } = this.parts;
    play.textContent = state.playing ? "Pause" : "Play";
    fps.value = state.fps;
    this.parts["fps-shown"].textContent = Math.round(state.fps);
    if (document.activeElement !== seed) seed.value = state.seed;
    uncertain.checked = state.uncertain;
    this.parts["goes-on"].checked = state.goes_on;
    for (const [root, chosen] of [[actors, state.who], [kinds, state.kind], [record, state.recording]]) {
      for (const button of root.children) {
        button.setAttribute("aria-pressed", String(button.dataset.value === chosen));
      }
    }
    sessionStorage.setItem("state", JSON.stringify(state));
  }

  // A new session takes over what the page had set in the one before.
  restore(state) {
    const { link, welcome } = this;
    link.send({ type: "settings", fps: state.fps, uncertain: state.uncertain, goes_on: state.goes_on });
    if (welcome.kinds.includes(state.kind) && state.kind !== "image") this.start(state.kind);
    if (welcome.actors.includes(state.who)) link.send({ type: "control", who: state.who });
    link.send({ type: "reset", seed: state.seed });
    if (state.playing) link.send({ type: "play" });
  }

  start(kind) {
    if (kind === "image") this.parts.image.click();
    else this.link.send({ type: "start", kind, episode: Number(this.parts.episode.value) || 0 });
  }

  // The image at the model's size, as RGB: nothing else of it leaves the page.
  async sendImage(file) {
    const [, height, width] = this.welcome.image;
    const bitmap = await createImageBitmap(file).catch(() => null);
    this.parts.image.value = "";
    if (!bitmap) return;
    const canvas = new OffscreenCanvas(width, height);
    const context = canvas.getContext("2d");
    const scale = Math.max(width / bitmap.width, height / bitmap.height);
    const [w, h] = [bitmap.width * scale, bitmap.height * scale];
    context.imageSmoothingQuality = "high";
    context.drawImage(bitmap, (width - w) / 2, (height - h) / 2, w, h);
    const { data } = context.getImageData(0, 0, width, height);
    const rgb = new Uint8Array(3 * width * height);
    for (let i = 0, j = 0; j < rgb.length; i += 4, j += 3) rgb.set(data.subarray(i, i + 3), j);
    this.link.sendBytes(rgb);
  }

  seed() {
    const seed = Number(this.parts.seed.value);
    return Number.isInteger(seed) && seed >= 0 && seed < 2 ** 31 ? seed : null;
  }

  async share() {
    const address = new URL(location.href);
    address.hash = `watch=${this.welcome.watch}`;
    await navigator.clipboard.writeText(address.href);
    this.parts.share.textContent = "Copied";
    setTimeout(() => { this.parts.share.textContent = "Copy link to watch"; }, 1500);
  }
}

function typing(target) {
  return target.matches?.('input:not([type="checkbox"]):not([type="range"]), textarea, select');
}
