// The live view: takes the news of a run and shows them.
"use strict";

const ENDED = {
  finished: "The run has ended: the stream is over.",
  stopped: "The run was stopped before the end of its stream.",
  failed: "The run ended with an error; its terminal says which.",
};
const RETRY_MS = [1000, 2000, 4000, 8000];
const SILENCE_MS = 30000; // the server breaks it after ten seconds
const MARGIN = { left: 38, right: 10, top: 8, bottom: 22 }; // of a chart
const COLORS = {
  miou: "--accent", updates: "--key", stride: "--stride", fps: "--accent",
};

const $ = (id) => document.getElementById(id);
const run = { state: "starting", counts: null, summary: null, series: {} };
const hovered = { name: null, x: 0 };
let connection = null; // an AbortController, while there is one
let retry = null; // a timer
let numFailures = 0;

// The connection.

async function connect() {
  clearTimeout(retry);
  const mine = new AbortController();
  connection = mine;
  let problem = "the connection is lost";
  const answer = await fetch("events", {
    signal: mine.signal, cache: "no-store", credentials: "same-origin",
  }).catch(() => null);
  if (answer && answer.status === 503) problem = "there are too many viewers";
  if (answer && answer.status === 401) problem = "the token is not known";
  if (answer && answer.ok) {
    numFailures = 0;
    showPictures();
    await read(answer.body.getReader(), mine);
  }
  if (connection !== mine || run.state in ENDED) return;
  connection = null;
  const wait = RETRY_MS[Math.min(numFailures, RETRY_MS.length - 1)];
  numFailures += 1;
  showState("lost", `${capital(problem)}; trying again every few seconds.`);
  retry = setTimeout(connect, wait);
}

async function read(reader, mine) {
  const decoder = new TextDecoder();
  let text = "";
  for (;;) {
    const watchdog = setTimeout(() => mine.abort(), SILENCE_MS);
    const { done, value } = await reader.read().catch(() => ({ done: true }));
    clearTimeout(watchdog);
    if (done) return;
    text += decoder.decode(value, { stream: true });
    const events = text.split("\n\n");
    text = events.pop();
    for (const event of events) {
      if (event.startsWith("data: ")) take(JSON.parse(event.slice(6)));
    }
  }
}

function disconnect() {
  clearTimeout(retry);
  const old = connection;
  connection = null;
  if (old) old.abort();
  $("overlay").removeAttribute("src");
  $("overlay").hidden = true;
}

function showPictures() {
  const image = $("overlay");
  image.onload = () => { image.hidden = false; $("no-picture").hidden = true; };
  image.onerror = () => {
    image.hidden = true;
    $("no-picture").hidden = false;
    $("no-picture").textContent = "no picture: there are too many viewers";
  };
  // Only some browsers fire an event for the first frame of multipart pictures.
  image.hidden = false;
  image.src = `overlay.mjpg?${Date.now()}`;
}

// News.

function take(news) {
  run.state = news.state;
  if (news.about) showAbout(news.about);
  if (news.counts) run.counts = news.counts;
  if (news.summary) run.summary = news.summary;
  for (const [name, tail] of Object.entries(news.series)) {
    const known = run.series[name] || [];
    run.series[name] = known.slice(0, tail.start).concat(tail.points);
  }
  $("problem").hidden = !news.problem;
  $("problem").textContent = news.problem ? `Latest problem: ${news.problem}`
    : "";
  if (news.counts) $("no-picture").hidden = true;
  showState(news.state, words());
  showTiles();
  if (news.summary) showIou(news.summary.per_class);
  requestDrawing();
}

function words() {
  if (run.state in ENDED) return ENDED[run.state];
  if (run.state === "starting") return "Starting: the student is compiled.";
  const { num_frames: n, total } = run.counts || { num_frames: 0 };
  return total ? `Running: frame ${n} of ${total}` : `Running: frame ${n}`;
}

function showState(state, text) {
  $("state").className = state;
  document.body.classList.toggle("lost", state === "lost");
  // Screen readers announce changes of state, not each frame.
  $("state").setAttribute("aria-live", state === "running" ? "off" : "polite");
  $("state").lastElementChild.textContent = text;
}

function showAbout(about) {
  run.summary = null; // of a run before this one
  $("stream").textContent = about.stream;
  document.title = `${about.stream} - live view`;
  $("classes").replaceChildren(...about.classes.map((one) => {
    const item = element("li", "");
    const chip = element("span", "");
    chip.className = "chip";
    chip.style.background = one.color;
    item.append(chip, one.name, " ", element("b", ""));
    item.dataset.name = one.name;
    return item;
  }));
}

function showIou(perClass) {
  for (const item of $("classes").children) {
    const iou = perClass[item.dataset.name];
    item.lastElementChild.textContent = iou === undefined ? ""
      : iou.toFixed(3);
  }
}

function showTiles() {
  const c = run.counts;
  if (!c) return;
  const frames = c.num_frames - c.num_skipped;
  const share = frames ? `${(100 * c.num_keys / frames).toFixed(1)}% of ` : "";
  const perKey = c.num_keys ? (c.num_updates / c.num_keys).toFixed(1) : "-";
  const s = run.summary || {};
  const tiles = [
    ["frames", frames, c.total ? `of ${c.total}` : "so far"],
    ["mIoU", number(c.miou, 3), s.reference ? `against the ${s.reference}`
      : "so far"],
    ["key frames", c.num_keys, `${share}${frames} frames`],
    ["updates", c.num_updates, `${perKey} per key frame`],
    ["stride", c.stride, "now"],
    ["frames/s", number(c.fps, 1), "without compiling"],
  ];
  if (s.speedup_paper_model) {
    tiles.push(["speed-up", `${s.speedup_paper_model.toFixed(1)}x`,
      "paper's cost model"]);
  }
  if (s.speedup_measured) {
    tiles.push(["speed-up", `${s.speedup_measured.toFixed(1)}x`, "measured"]);
  }
  if (c.num_skipped) {
    tiles.push(["frames skipped", c.num_skipped, "could not be read", "warn"]);
  }
  if (c.num_teacher_failures) {
    tiles.push(["teacher failures", c.num_teacher_failures,
      "the student goes on", "warn"]);
  }
  $("tiles").replaceChildren(...tiles.map(([title, value, note, kind]) => {
    const tile = element("div", "");
    tile.className = "tile";
    const figure = element("b", value);
    figure.className = kind || "";
    tile.append(element("span", title), figure, element("span", note));
    return tile;
  }));
}

function element(name, text) {
  const made = document.createElement(name);
  made.textContent = text;
  return made;
}

const capital = (text) => text[0].toUpperCase() + text.slice(1);
const number = (x, digits) => (x === null ? "-" : x.toFixed(digits));

// Charts.

let isDrawingDue = false;

function requestDrawing() {
  if (isDrawingDue) return;
  isDrawingDue = true;
  requestAnimationFrame(() => {
    isDrawingDue = false;
    for (const card of document.querySelectorAll("[data-chart]")) draw(card);
  });
}

function draw(card) {
  const name = card.dataset.chart;
  const points = run.series[name] || [];
  const canvas = card.querySelector("canvas");
  const { clientWidth: width, clientHeight: height } = canvas;
  const ratio = window.devicePixelRatio || 1;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  const pen = canvas.getContext("2d");
  pen.scale(ratio, ratio);
  const style = getComputedStyle(document.documentElement);
  const color = (variable) => style.getPropertyValue(variable).trim();
  pen.font = `12px ${getComputedStyle(document.body).fontFamily}`;
  const map = scales(name, points, width, height);
  drawGrid(pen, map, width, color);
  pen.save();
  pen.beginPath();
  pen.rect(MARGIN.left, 0, map.right - MARGIN.left + 1, map.bottom + 1);
  pen.clip();
  const ink = color(COLORS[name]);
  if (name === "updates") drawBars(pen, map, points, ink);
  else if (name === "stride") drawLine(pen, map, steps(points), ink, 2);
  else if (name === "miou") {
    pen.globalAlpha = 0.35;
    drawLine(pen, map, points, ink, 1);
    pen.globalAlpha = 1;
    drawLine(pen, map, smooth(points), ink, 2);
  } else drawLine(pen, map, points, ink, 1.5);
  pen.restore();
  const point = hovered.name === name ? nearest(points, map, hovered.x) : null;
  if (point) drawCross(pen, map, point, color("--ink"));
  const shown = point || points[points.length - 1];
  card.querySelector("output").textContent = shown
    ? `frame ${shown[0]}: ${inWords(name, shown[1])}` : "nothing yet";
}

function inWords(name, value) {
  return name === "miou" ? value.toFixed(3) : String(+value.toFixed(1));
}

function scales(name, points, width, height) {
  let lastT = 10;
  for (const series of Object.values(run.series)) {
    if (series.length) lastT = Math.max(lastT, series[series.length - 1][0]);
  }
  let top = 1;
  if (name !== "miou") {
    for (const point of points) top = Math.max(top, point[1]);
    top *= 1.08;
  }
  const right = width - MARGIN.right;
  const bottom = height - MARGIN.bottom;
  return {
    right, bottom, top, lastT,
    x: (t) => MARGIN.left + (right - MARGIN.left) * t / lastT,
    y: (v) => bottom - (bottom - MARGIN.top) * v / top,
  };
}

function ticks(most, count) {
  const rough = most / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((k) => k * power).find((s) => s >= rough);
  const found = [];
  for (let i = 0; i * step <= most * 1.0001; i += 1) found.push(i * step);
  return found;
}

function drawGrid(pen, map, width, color) {
  pen.strokeStyle = color("--line");
  pen.fillStyle = color("--soft");
  pen.lineWidth = 1;
  pen.textAlign = "right";
  pen.textBaseline = "middle";
  for (const value of ticks(map.top, 4)) {
    const y = Math.round(map.y(value)) + 0.5;
    line(pen, MARGIN.left, y, map.right, y);
    pen.fillText(String(+value.toFixed(2)), MARGIN.left - 6, y);
  }
  pen.textBaseline = "top";
  for (const t of ticks(map.lastT, width < 400 ? 3 : 6)) {
    const label = String(t);
    const half = pen.measureText(label).width / 2;
    pen.textAlign = map.x(t) + half > width ? "right" : "center";
    pen.fillText(label, map.x(t), map.bottom + 6);
  }
}

function line(pen, x0, y0, x1, y1) {
  pen.beginPath();
  pen.moveTo(x0, y0);
  pen.lineTo(x1, y1);
  pen.stroke();
}

function drawLine(pen, map, points, ink, width) {
  pen.strokeStyle = ink;
  pen.lineWidth = width;
  pen.lineJoin = "round";
  pen.beginPath();
  for (const [t, value] of points) pen.lineTo(map.x(t), map.y(value));
  pen.stroke();
}

function drawBars(pen, map, points, ink) {
  pen.fillStyle = ink;
  const room = (map.right - MARGIN.left) / Math.max(points.length, 1);
  const width = Math.max(1, Math.min(6, room * 0.7));
  for (const [t, value] of points) {
    // No update is a dash: the teacher was asked, and content.
    const y = Math.min(map.y(value), map.bottom - 2);
    pen.fillRect(map.x(t) - width / 2, y, width, map.bottom - y);
  }
}

function drawCross(pen, map, [t, value], ink) {
  pen.strokeStyle = ink;
  pen.fillStyle = ink;
  pen.lineWidth = 1;
  const x = Math.round(map.x(t)) + 0.5;
  line(pen, x, MARGIN.top, x, map.bottom);
  pen.beginPath();
  pen.arc(map.x(t), map.y(value), 3.5, 0, 2 * Math.PI);
  pen.fill();
}

// A value holds until the next one.
function steps(points) {
  return points.flatMap(([t, value], i) => (
    i ? [[t, points[i - 1][1]], [t, value]] : [[t, value]]));
}

// A moving average over a fortieth of the points; the ends use fewer.
function smooth(points) {
  const half = Math.floor(points.length / 80);
  let sum = 0;
  let from = 0;
  let to = 0;
  return points.map(([t], i) => {
    while (to < Math.min(points.length, i + half + 1)) sum += points[to++][1];
    while (from < i - half) sum -= points[from++][1];
    return [t, sum / (to - from)];
  });
}

function nearest(points, map, x) {
  let best = null;
  for (const point of points) {
    const distance = Math.abs(map.x(point[0]) - x);
    if (!best || distance < best.distance) best = { point, distance };
  }
  return best && best.point;
}

// What the reader does.

for (const card of document.querySelectorAll("[data-chart]")) {
  const canvas = card.querySelector("canvas");
  const move = (event) => {
    hovered.name = card.dataset.chart;
    hovered.x = event.clientX - canvas.getBoundingClientRect().left;
    requestDrawing();
  };
  canvas.addEventListener("pointermove", move);
  canvas.addEventListener("pointerdown", move);
  canvas.addEventListener("pointerleave", () => {
    hovered.name = null;
    requestDrawing();
  });
}
window.addEventListener("resize", requestDrawing);
matchMedia("(prefers-color-scheme: dark)")
  .addEventListener("change", requestDrawing);
// A hidden page closes its streams: browsers allow few connections.
document.addEventListener("visibilitychange", () => {
  if (run.state in ENDED) return;
  if (document.hidden) disconnect();
  else if (!connection) connect();
});
// Once the page counts as loaded; the pictures never end.
window.addEventListener("load", () => setTimeout(connect, 0));
