// The two sides: pictures as they are, vectors as bars.

const COLOURS = { real: "#4fd1b5", dream: "#b79bff" };

export class Stage {
  constructor(root) {
    this.sides = {};
    for (const side of ["real", "dream"]) {
      const figure = root.querySelector(`.${side}`);
      const part = (name) => figure.querySelector(name);
      this.sides[side] = {
        picture: part(".picture"), bars: part(".bars"), badge: part(".badge"),
        sum: part(".return"), note: part(".note"), scale: 1,
      };
    }
  }

  describe(welcome) {
    const { real, dream } = this.sides;
    dream.note.textContent = welcome.decodes ? "" :
      `${welcome.class} predicts no observations. Shown are the first numbers of its latent, ` +
      "beside those of what was really seen, and how far apart they are.";
    real.note.textContent = "";
  }

  show(facts, pixels) {
    for (const [side, parts] of Object.entries(this.sides)) {
      const image = pixels[side];
      const bars = facts.bars[side];
      parts.picture.hidden = !image;
      parts.bars.hidden = !bars;
      if (image) draw(parts.picture, image);
      if (bars) this.drawBars(parts, side, bars);
      parts.sum.textContent = `return ${facts.return[side].toFixed(2)}`;
    }
    const { real, dream } = this.sides;
    const known = Boolean(pixels.real || facts.bars.real);
    real.badge.textContent = facts.over ? "episode over" : "";
    dream.badge.textContent = facts.ended ? "says it is over" : "";
    if (!known) real.note.textContent = "Nothing real here: all of this is dreamt.";
    else if (real.note.textContent.startsWith("Nothing real")) real.note.textContent = "";
    real.sum.hidden = !known;
  }

  drawBars(parts, side, values) {
    const canvas = parts.bars;
    const context = sized(canvas);
    const { width, height } = canvas;
    parts.scale = Math.max(parts.scale * 0.995, 1e-6, ...values.map(Math.abs));
    context.clearRect(0, 0, width, height);
    const step = width / values.length;
    context.fillStyle = "#323c49";
    context.fillRect(0, height / 2, width, 1);
    context.fillStyle = COLOURS[side];
    values.forEach((value, i) => {
      const size = (value / parts.scale) * (height / 2 - 6);
      context.fillRect(i * step + step * 0.15, height / 2, step * 0.7, -size);
    });
  }
}

function draw(canvas, { width, height, rgb }) {
  if (canvas.width !== width || canvas.height !== height) {
    canvas.width = width;
    canvas.height = height;
    canvas.style.aspectRatio = `${width} / ${height}`;
  }
  const context = canvas.getContext("2d");
  const image = context.createImageData(width, height);
  for (let i = 0, j = 0; i < rgb.length; i += 3, j += 4) {
    image.data[j] = rgb[i];
    image.data[j + 1] = rgb[i + 1];
    image.data[j + 2] = rgb[i + 2];
    image.data[j + 3] = 255;
  }
  context.putImageData(image, 0, 0);
}

// A canvas as large as it is shown, in device pixels.
export function sized(canvas) {
  const width = Math.round(canvas.clientWidth * devicePixelRatio) || 1;
  const height = Math.round(canvas.clientHeight * devicePixelRatio) || 1;
  if (canvas.width !== width) canvas.width = width;
  if (canvas.height !== height) canvas.height = height;
  return canvas.getContext("2d");
}
