// The page of a run: its chart answers the pointer and the keys, and leads the
// video. Without this script the page shows the same, standing still.
"use strict";

(() => {
  const SVG = "http://www.w3.org/2000/svg";

  const section = document.getElementById("moment");
  const source = document.getElementById("run-data");
  if (section && source) {
    makeLive(section, JSON.parse(source.textContent));
  }
  document.querySelectorAll("pre").forEach(addCopyButton);

  function makeLive(section, data) {
    const video = section.querySelector("video");
    const charts = [...section.querySelectorAll("svg[data-plot]")].map(
      (svg) => makeChart(svg, data),
    );
    const caption = make("p", "caption");
    let now = 0; // index of the row that is shown
    section.classList.add("live");

    // Marks a row everywhere; the video is not touched.
    function show(row) {
      now = row;
      const words = describe(data, row);
      caption.textContent = words.join(" \u00b7 ");
      for (const chart of charts) {
        chart.pin(row);
        chart.box.setAttribute("aria-valuenow", data.t[row]);
        chart.box.setAttribute("aria-valuetext", words.join(", "));
      }
    }

    function choose(row) {
      show(row);
      // Its middle: no rounding can lead to the frame before.
      seek((data.place[row] + 0.5) / data.fps);
    }

    function stepToKey(direction) {
      const keys = data.key;
      const next =
        direction > 0
          ? keys.find((row) => row > now)
          : keys.findLast((row) => row < now);
      if (next !== undefined) choose(next);
    }

    function stepBy(count) {
      choose(Math.min(Math.max(now + count, 0), data.t.length - 1));
    }

    for (const chart of charts) {
      listenToPointer(chart, choose);
    }
    listenToKeys(section, { stepToKey, stepBy });
    addPlayer(section, video, caption, stepToKey);
    const seek =
      video && data.fps
        ? followVideo(video, () => {
            const place = Math.floor(video.currentTime * data.fps);
            show(nearest(data.place, place));
          })
        : () => {};
    show(0);
  }

  // What is known of a row, in words.
  function describe(data, row) {
    const t = data.t[row];
    const seconds = data.fps ? ` (${(t / data.fps).toFixed(2)} s)` : "";
    const miou = data.miou[row];
    const words = [
      `frame ${t}${seconds}`,
      miou === null ? "mIoU not measured" : `mIoU ${miou.toFixed(3)}`,
    ];
    if (data.stride[row]) words.push(`stride ${data.stride[row]}`);
    const key = data.key.findLastIndex((other) => other <= row);
    if (key < 0) return words;
    const since = t - data.t[data.key[key]];
    const updates = data.updates[key];
    const number = (x) => (x === null ? "\u2013" : x.toFixed(3));
    words.push(
      (since ? `${count(since, "frame")} after the last ` : "") +
        `key frame: ${number(data.before[key])} \u2192 ` +
        `${number(data.after[key])}, ` +
        count(updates ?? 0, "update"),
    );
    if (!since && data.learned[key] !== null) {
      words.push(`learned from frame ${data.learned[key]}`);
    }
    return words;
  }

  function count(number, word) {
    return `${number} ${word}${number === 1 ? "" : "s"}`;
  }

  // A chart with two lines across: where the pointer is, what is chosen.
  function makeChart(svg, data) {
    const plot = JSON.parse(svg.dataset.plot);
    const { width, height } = svg.viewBox.baseVal;
    const box = svg.parentElement;
    const tip = make("div", "tip");
    tip.hidden = true;
    box.append(tip);
    const [left, right] = plot.x.map((x) => x * width);
    const [first, last] = plot.xlim;
    const toX = (t) => left + ((t - first) / (last - first)) * (right - left);
    const [low, high] = plot.ylim;
    const [bottom, top] = plot.y.map((y) => y * height);
    const toY = (v) => bottom + ((v - low) / (high - low)) * (top - bottom);
    box.tabIndex = 0;
    box.setAttribute("role", "slider");
    box.setAttribute("aria-valuemin", data.t[0]);
    box.setAttribute("aria-valuemax", data.t[data.t.length - 1]);

    function makeMark(name) {
      const line = svg.appendChild(document.createElementNS(SVG, "line"));
      const dot = svg.appendChild(document.createElementNS(SVG, "circle"));
      line.setAttribute("class", name);
      line.setAttribute("y1", top);
      line.setAttribute("y2", plot.bottom * height);
      dot.setAttribute("class", name);
      dot.setAttribute("r", 3);
      return (row) => {
        const isShown = row !== null;
        const miou = isShown ? data.miou[row] : null;
        line.style.display = isShown ? "" : "none";
        dot.style.display = miou === null ? "none" : "";
        if (!isShown) return;
        const x = toX(data.t[row]);
        line.setAttribute("x1", x);
        line.setAttribute("x2", x);
        dot.setAttribute("cx", x);
        dot.setAttribute("cy", toY(miou ?? 0));
      };
    }

    const pin = makeMark("pin");
    const cross = makeMark("cross");
    cross(null);

    function rowAt(clientX) {
      const area = svg.getBoundingClientRect();
      const x = ((clientX - area.left) / area.width) * width;
      const t = first + ((x - left) / (right - left)) * (last - first);
      return nearest(data.t, t);
    }

    // Beside the pointer, where it hides neither that nor is cut off.
    function placeTip(row, clientY) {
      const area = box.getBoundingClientRect();
      const x = (toX(data.t[row]) / width) * area.width;
      const room = area.width - tip.offsetWidth;
      const wanted = x < room - 10 ? x + 10 : x - 10 - tip.offsetWidth;
      tip.style.left = `${Math.min(Math.max(wanted, 0), room)}px`;
      const y = clientY - area.top - tip.offsetHeight / 2;
      const lowest = area.height - tip.offsetHeight;
      tip.style.top = `${Math.min(Math.max(y, 0), lowest)}px`;
    }

    function point(event) {
      const row = rowAt(event.clientX);
      cross(row);
      tip.hidden = false;
      tip.textContent = describe(data, row).join("\n");
      placeTip(row, event.clientY);
    }

    function leave() {
      cross(null);
      tip.hidden = true;
    }

    return { svg, box, pin, point, leave, rowAt };
  }

  // Pointing shows the numbers, letting go chooses the frame; a finger may
  // draw along the chart, and still scrolls the page up and down.
  function listenToPointer({ svg, box, point, leave, rowAt }, choose) {
    let isDown = false;
    svg.addEventListener("pointerdown", (event) => {
      isDown = event.isPrimary && event.button === 0;
      if (isDown) point(event);
    });
    svg.addEventListener("pointermove", (event) => {
      if (event.isPrimary) point(event);
    });
    svg.addEventListener("pointerup", (event) => {
      if (!isDown || !event.isPrimary) return;
      isDown = false;
      choose(rowAt(event.clientX));
      box.focus({ preventScroll: true });
    });
    for (const name of ["pointerleave", "pointercancel"]) {
      svg.addEventListener(name, () => {
        isDown = false;
        leave();
      });
    }
  }

  // Arrows go from key frame to key frame, with Shift from frame to frame.
  function listenToKeys(section, { stepToKey, stepBy }) {
    document.addEventListener("keydown", (event) => {
      const direction = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      const isHere =
        event.target === document.body || section.contains(event.target);
      if (!direction || !isHere) return;
      if (event.ctrlKey || event.altKey || event.metaKey) return;
      event.preventDefault();
      if (event.shiftKey) stepBy(direction);
      else stepToKey(direction);
    });
  }

  // Calls `update` wherever the video goes; returns how to send it somewhere.
  // It leaps again only when the last leap was painted: else a browser may go
  // on showing where that one led.
  function followVideo(video, update) {
    let isLeaping = false;
    let wanted = null; // seconds, where to after this leap
    function tick() {
      if (video.paused) return;
      update();
      requestAnimationFrame(tick);
    }
    function leap(seconds) {
      video.pause();
      wanted = isLeaping ? seconds : null;
      if (isLeaping) return;
      isLeaping = video.readyState > 0; // else it begins there, without a leap
      video.currentTime = seconds;
    }
    function land() {
      isLeaping = false;
      if (wanted !== null) leap(wanted);
      else update();
    }
    video.addEventListener("play", tick);
    video.addEventListener("pause", () => isLeaping || update());
    video.addEventListener("seeked", () =>
      requestAnimationFrame(() => requestAnimationFrame(land)),
    );
    return leap;
  }

  // Own buttons: the browser's hide a low picture.
  function addPlayer(section, video, caption, stepToKey) {
    const player = section.querySelector(".player") ?? make("div", "player");
    const buttons = make("div", "buttons");
    const add = (label, words, act) => {
      const button = make("button", "", words);
      button.type = "button";
      button.setAttribute("aria-label", label);
      button.addEventListener("click", act);
      buttons.append(button);
      return button;
    };
    add("previous key frame", "\u25c0 key", () => stepToKey(-1));
    if (video) {
      const toggle = () => (video.paused ? video.play() : video.pause());
      const play = add("play", "play", toggle);
      const name = () => {
        play.textContent = video.paused ? "play" : "pause";
        play.setAttribute("aria-label", play.textContent);
      };
      video.addEventListener("play", name);
      video.addEventListener("pause", name);
      video.addEventListener("click", () => video.controls || toggle());
      video.controls = false;
    }
    add("next key frame", "key \u25b6", () => stepToKey(1));
    if (video && video.requestFullscreen) {
      add("full screen", "full screen", () => video.requestFullscreen());
      document.addEventListener("fullscreenchange", () => {
        video.controls = document.fullscreenElement === video;
      });
    }
    const below = make("div", "below");
    below.append(buttons, caption);
    player.append(below);
    if (!player.isConnected) section.prepend(player);
  }

  // Index of the number nearest to x among ascending ones.
  function nearest(numbers, x) {
    let low = 0;
    let high = numbers.length - 1;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (numbers[middle] < x) low = middle + 1;
      else high = middle;
    }
    const isBefore = low > 0 && x - numbers[low - 1] <= numbers[low] - x;
    return isBefore ? low - 1 : low;
  }

  function addCopyButton(block) {
    const button = make("button", "copy", "copy");
    button.type = "button";
    button.addEventListener("click", async () => {
      const isDone = await copyText(block);
      button.textContent = isDone ? "copied" : "press Ctrl+C";
      setTimeout(() => (button.textContent = "copy"), 2000);
    });
    block.before(button);
  }

  async function copyText(block) {
    try {
      await navigator.clipboard.writeText(block.textContent);
      return true;
    } catch {
      // A page from a file may not, in some browsers: selecting it is allowed.
      getSelection().selectAllChildren(block);
      return document.execCommand("copy");
    }
  }

  function make(tag, name = "", words = "") {
    const element = document.createElement(tag);
    if (name) element.className = name;
    element.textContent = words;
    return element;
  }
})();
