// What the person does: keys with the names of the choices, sliders, a field for the mouse.

const SHOWN = {
  ArrowUp: "↑", ArrowDown: "↓", ArrowLeft: "←", ArrowRight: "→", " ": "space",
};

export class Actions {
  constructor(root, acts) {
    this.root = root;
    this.acts = acts; // called with an action, and whether a key went down
    this.held = new Set();
    this.clear = () => {};
    addEventListener("blur", () => this.release());
  }

  describe(actions) {
    this.actions = actions;
    this.root.replaceChildren();
    this.held.clear();
    this.now = null;
    if (actions.kind === "choice") this.describeChoice(actions);
    else if (actions.kind === "choices") this.describeSliders(actions.counts.length, actions.counts);
    else if (actions.kind === "numbers") this.describeNumbers(actions);
    else this.root.append("this world takes no actions");
  }

  describeChoice({ names, keys }) {
    this.caps = names.map((name, choice) => {
      const cap = document.createElement("button");
      cap.className = "key";
      for (const key of keys[choice]) {
        const label = document.createElement("kbd");
        label.textContent = SHOWN[key] ?? key;
        if (key) cap.append(label);
      }
      cap.append(keys[choice].length ? name : `${name} (no key)`);
      cap.onpointerdown = () => this.choose(choice, true);
      cap.onpointerup = cap.onpointerleave = () => this.pointed === choice && this.release();
      this.root.append(cap);
      return cap;
    });
  }

  describeNumbers({ size, sliders }) {
    this.values = new Array(size).fill(0);
    if (size >= 1) this.root.append(this.pad(size));
    this.describeSliders(sliders, null);
  }

  describeSliders(count, counts) {
    this.values ??= new Array(count).fill(0);
    const box = document.createElement("div");
    box.className = "sliders";
    this.sliders = Array.from({ length: count }, (_, i) => {
      const label = box.appendChild(document.createElement("label"));
      const slider = document.createElement("input");
      slider.type = "range";
      Object.assign(slider, counts ? { min: 0, max: counts[i] - 1, step: 1 } : { min: -1, max: 1, step: 0.01 });
      slider.value = 0;
      slider.oninput = () => this.set({ [i]: Number(slider.value) }, true);
      slider.ondblclick = () => this.set({ [i]: 0 }, true);
      label.append(String(i), slider);
      return slider;
    });
    this.root.append(box);
  }

  // A field for the mouse: the first number from left to right, the second upwards.
  pad(size) {
    const pad = document.createElement("div");
    pad.className = "pad";
    this.dot = pad.appendChild(document.createElement("i"));
    const point = (event) => {
      const box = pad.getBoundingClientRect();
      const place = (at, length) => Math.max(-1, Math.min(1, (2 * at) / length - 1));
      const values = { 0: place(event.clientX - box.left, box.width) };
      if (size > 1) values[1] = -place(event.clientY - box.top, box.height);
      this.set(values, true);
    };
    pad.onpointerdown = (event) => { pad.setPointerCapture(event.pointerId); point(event); };
    pad.onpointermove = (event) => pad.hasPointerCapture(event.pointerId) && point(event);
    pad.onpointerup = () => this.set({ 0: 0, ...(size > 1 && { 1: 0 }) }, false);
    return pad;
  }

  set(values, pressed) {
    for (const [i, value] of Object.entries(values)) {
      this.values[i] = value;
      if (this.sliders[i]) this.sliders[i].value = value;
    }
    if (this.dot) {
      this.dot.style.left = `${50 + 50 * this.values[0]}%`;
      this.dot.style.top = `${50 - 50 * (this.values.length > 1 ? this.values[1] : 0)}%`;
    }
    this.acts([...this.values], pressed);
  }

  // Whether the key is one of ours.
  key(name, down) {
    const { actions } = this;
    if (!actions) return false;
    const ours = actions.kind === "choice"
      ? actions.keys.some((keys) => keys.includes(name))
      : actions.kind === "numbers" && name in ARROWS;
    if (!ours) return false;
    if (down) this.held.add(name);
    else this.held.delete(name);
    if (actions.kind === "numbers") this.set(this.fromArrows(), down);
    else this.choose(this.fromKeys(), down);
    return true;
  }

  // The choice whose keys are all held, with the most of them.
  fromKeys() {
    const { keys, idle } = this.actions;
    let best = null;
    keys.forEach((wanted, choice) => {
      const held = wanted.length && wanted.every((key) => this.held.has(key));
      if (held && (best === null || wanted.length > keys[best].length)) best = choice;
    });
    return best ?? idle;
  }

  fromArrows() {
    const values = {};
    for (const [name, [i, sign]] of Object.entries(ARROWS)) {
      if (i < this.values.length) values[i] = (values[i] ?? 0) + (this.held.has(name) ? sign : 0);
    }
    return values;
  }

  choose(choice, pressed) {
    this.pointed = choice;
    if (choice === null) return; // nothing does nothing here: the last choice goes on
    this.now = choice;
    this.acts(choice, pressed);
  }

  release() {
    if (!this.actions || !this.held.size && this.pointed == null) return;
    this.held.clear();
    this.pointed = null;
    if (this.actions.kind === "choice") this.choose(this.actions.idle, false);
    else if (this.actions.kind === "numbers") this.set(this.fromArrows(), false);
  }

  // Light the keys of the action that was really taken.
  light(action) {
    if (this.actions?.kind !== "choice") return;
    this.caps.forEach((cap, choice) => { cap.dataset.on = String(choice === action); });
  }
}

const ARROWS = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowDown: [1, -1], ArrowUp: [1, 1] };
