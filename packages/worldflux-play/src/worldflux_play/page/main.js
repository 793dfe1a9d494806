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

function frame(facts, pixels) {
  stage.show(facts, pixels);
  curves.add(facts);
  actions.light(facts.action);
  measure(facts);
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

// Frames in the last second; from a key to the frame after its picture was drawn.
function measure(facts) {
  const now = performance.now();
  arrivals.push(now);
  while (arrivals[0] < now - 1000) arrivals.shift();
  keep(costs, facts.ms?.all);
  const answered = [...sent].filter(([number]) => number <= facts.input);
  if (answered.length) {
    requestAnimationFrame(() => keep(latencies, performance.now() - answered.at(-1)[1]));
    answered.forEach(([number]) => sent.delete(number));
  }
  by("rate").textContent = arrivals.length;
  by("latency").textContent = latencies.length ? median(latencies).toFixed(0) : "–";
  by("cost").textContent = costs.length ? median(costs).toFixed(1) : "–";
}

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
