// Live curves of the last steps; older ones are forgotten.

import { sized } from "./stage.js";

const KEPT = 240;
const COLOURS = { real: "#4fd1b5", dream: "#b79bff", one: "#e8ecf1" };
const CURVES = [
  { name: "Reward", lines: { real: (f) => f.reward?.real, dream: (f) => f.reward?.dream } },
  { name: "Predicted to go on", lines: { dream: (f) => f.continue }, low: 0, high: 1 },
  { name: "Likeness, PSNR in dB", lines: { one: (f) => f.psnr }, low: 0 },
  { name: "Distance of dream and reality", lines: { one: (f) => f.distance }, low: 0 },
  { name: "Uncertainty", lines: { dream: (f) => f.uncertainty }, low: 0 },
  { name: "Milliseconds a step", lines: { one: (f) => f.ms?.all }, low: 0 },
];

export class Curves {
  constructor(root) {
    this.curves = CURVES.map((curve) => {
      const box = document.createElement("div");
      box.className = "curve";
      const title = box.appendChild(document.createElement("h3"));
      title.append(curve.name);
      const canvas = box.appendChild(document.createElement("canvas"));
      const lines = Object.entries(curve.lines).map(([key, read]) => {
        const value = title.appendChild(document.createElement("b"));
        value.className = key;
        return { key, read, value, points: [] };
      });
      box.hidden = true;
      root.append(box);
      return { ...curve, box, canvas, lines };
    });
    this.ends = [];
  }

  add(facts) {
    if (facts.t === 0) this.ends.push(0);
    this.ends = this.ends.map((at) => at + 1).filter((at) => at < KEPT);
    for (const { lines } of this.curves) {
      for (const line of lines) {
        const value = facts.t === 0 ? null : line.read(facts);
        line.points.push(Number.isFinite(value) ? value : null);
        if (line.points.length > KEPT) line.points.shift();
        line.latest = value;
      }
    }
    this.due ??= setTimeout(() => {
      this.due = undefined;
      for (const curve of this.curves) this.drawAll(curve);
    }, 120);
  }

  drawAll(curve) {
    const { lines, box } = curve;
    for (const { value, latest } of lines) {
      value.textContent = Number.isFinite(latest) ? short(latest) : "";
    }
    box.hidden = !lines.some((line) => line.points.some((value) => value !== null));
    if (!box.hidden) this.draw(curve);
  }

  draw({ canvas, lines, low, high }) {
    const context = sized(canvas);
    const { width, height } = canvas;
    context.clearRect(0, 0, width, height);
    const known = lines.flatMap(({ points }) => points.filter((value) => value !== null));
    const bottom = Math.min(low ?? Infinity, ...known, 0);
    const top = Math.max(high ?? -Infinity, ...known, bottom + 1e-6);
    const x = (i, length) => width - ((length - 1 - i) * width) / (KEPT - 1);
    const y = (value) => height - 3 - ((value - bottom) / (top - bottom)) * (height - 6);
    context.fillStyle = "#262e39";
    for (const at of this.ends) context.fillRect(x(-at, 0) + width / (KEPT - 1), 0, 1, height);
    context.fillRect(0, y(Math.max(0, bottom)), width, 1);
    context.lineWidth = 1.6 * devicePixelRatio;
    for (const { key, points } of lines) {
      context.strokeStyle = COLOURS[key];
      context.beginPath();
      points.forEach((value, i) => {
        if (value === null) return;
        const before = points[i - 1] ?? null;
        if (before === null) context.moveTo(x(i, points.length) - 1, y(value));
        context.lineTo(x(i, points.length), y(value));
      });
      context.stroke();
    }
  }
}

function short(value) {
  const size = Math.abs(value);
  return size >= 100 ? value.toFixed(0) : size >= 10 ? value.toFixed(1) : value.toFixed(2);
}
