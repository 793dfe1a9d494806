// Everything together: what the server sends goes to the stage, the curves and the controls.

import { Controls } from "./controls.js";
import { Curves } from "./curves.js";
import { Actions } from "./keys.js";
import { Link } from "./link.js";
import { Stage } from "./stage.js";

const by = (id) => document.getElementById(id);
const stage = new Stage(by("stage"));
const curves = new Curves(by("curves"));
const actions = new Actions(by("keys"), act);
const sent = new Map(); // when an input was given, until its picture is there
const latencies = [];
const costs = [];
const arrivals = [];
let input = 0;

const link = new Link({ welcome, message, frame, state: linked });
const controls = new Controls(link, actions);

function welcome(about, anew) {
  by("name").textContent = about.name;
  by("env").textContent = about.env ?? "";
  document.title = `${about.name} – WorldFlux play`;
  by("notice").hidden = true;
  const before = JSON.parse(sessionStorage.getItem("state") ?? "null");
  stage.describe(about);
  actions.describe(about.actions);
  controls.describe(about);
  if (anew && before && about.plays) controls.restore(before);
}

function message(told) {
  if (told.type === "state") controls.show(told);
  if (told.type === "recorded") controls.recorded(told);
  if (told.type === "error") notice(told.text);
}

// Frames are drawn when the browser draws; the server waits until it is told so.
let newest;
function frame(facts, pixels) {
  curves.add(facts);
  keep(costs, facts.ms?.all);
  arrivals.push(performance.now());
  if (newest === undefined) requestAnimationFrame(shown);
  newest = { facts, pixels, count: (newest?.count ?? 0) + 1 };
}

function shown() {
  const { facts, pixels, count } = newest;
  newest = undefined;
  stage.show(facts, pixels);
  actions.light(facts.action);
  for (let i = 0; i < count; i += 1) link.seen();
  answered(facts.input);
  document.body.dataset.seed = facts.seed;
  document.body.dataset.frame = `${facts.episode}.${facts.t}`;
}

function act(action, pressed) {
  input += 1;
  sent.set(input, performance.now());
  if (sent.size > 100) sent.delete(sent.keys().next().value);
  const step = pressed && !controls.state.playing;
  if (pressed && controls.state.who !== "person") link.send({ type: "control", who: "person" });
  link.send({ type: "act", action, input, step });
}

// From a key to the moment after its picture was drawn.
function answered(input) {
  const found = [...sent].filter(([number]) => number <= input);
  if (!found.length) return;
  const channel = new MessageChannel(); // runs after this frame has been painted
  channel.port1.onmessage = () => keep(latencies, performance.now() - found.at(-1)[1]);
  channel.port2.postMessage(0);
  found.forEach(([number]) => sent.delete(number));
}

setInterval(() => {
  const now = performance.now();
  while (arrivals[0] < now - 1000) arrivals.shift();
  by("rate").textContent = arrivals.length;
  by("latency").textContent = latencies.length ? median(latencies).toFixed(0) : "–";
  by("cost").textContent = costs.length ? median(costs).toFixed(1) : "–";
}, 250);

function keep(list, value) {
  if (value === undefined) return;
  list.push(value);
  if (list.length > 100) list.shift();
}

function median(values) {
  return [...values].sort((a, b) => a - b)[values.length >> 1];
}

function linked(state, text) {
  by("link").dataset.state = state;
  by("link").textContent = text;
}

let hide;
function notice(text) {
  by("notice").textContent = text;
  by("notice").hidden = false;
  clearTimeout(hide);
  hide = setTimeout(() => { by("notice").hidden = true; }, 8000);
}
