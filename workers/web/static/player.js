// The player, the chart, the lanes and the outlines, all on one clock. Without pictures the clock still runs by hand.
(function () {
  "use strict";
  const page = document.getElementById("video-page");
  if (!page) return;
  const one = (selector, root) => (root || document).querySelector(selector);
  const all = (selector, root) => Array.from((root || document).querySelectorAll(selector));
  const video = document.getElementById("player");
  const stage = document.getElementById("stage");
  const canvas = document.getElementById("outlines");
  const clock = document.getElementById("clock");
  const chartPlace = document.getElementById("chart");
  const duration = Number(page.dataset.duration) || 1;
  const AXIS_PX = 46;
  const GUTTER_PX = 58;  // with the padding of a lane, the strips' margin
  const DASHES = [[], [9, 5], [2, 4], [], [9, 5], [2, 4]];
  let facts = null;
  let chart = null;
  let outlines = true;
  let byHand = 0;
  document.getElementById("controls").hidden = false;

  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const trackColour = (place) => colour("--track-" + (place % 6));
  const now = () => (video && video.readyState > 0 ? video.currentTime : byHand);

  function seek(seconds) {
    byHand = Math.min(Math.max(seconds, 0), duration);
    // a hair behind the frame's own time, so that the player shows this frame and not the one before
    if (video && video.readyState > 0) video.currentTime = Math.min(byHand + 0.002, video.duration || duration);
    show();
  }

  function moments() {
    if (facts && facts.looked_at.length) return facts.looked_at;
    return facts ? [...new Set(facts.tracks.flatMap((track) => track.t))].sort((a, b) => a - b) : [];
  }

  function step(direction) {
    if (video) video.pause();
    const times = moments(), here = now(), slack = 0.01;
    const next = direction > 0 ? times.find((t) => t > here + slack) : times.filter((t) => t < here - slack).pop();
    if (next !== undefined) seek(next);
  }

  function worst() {
    const button = one(".lane [data-seek]") || one("[data-seek]");
    if (button) button.click();
  }

  // --- one clock --------------------------------------------------------------------------------------------------
  function show() {
    const t = now(), share = Math.min(Math.max(t / duration, 0), 1);
    clock.textContent = t.toFixed(2) + " s";
    all(".strip .playhead").forEach((head) => { head.hidden = false; head.style.left = (share * 100) + "%"; });
    if (chart) one(".playhead", chart.over).style.left = chart.valToPos(t, "x") + "px";
    draw(t);
  }

  function boxAt(track, t) {
    if (!track.bbox || !track.t.length) return null;
    const after = track.t.findIndex((each) => each >= t);
    if (after === 0) return track.t[0] - t < 0.3 ? { box: track.bbox[0], score: track.score[0] } : null;
    if (after < 0) { const last = track.t.length - 1; return t - track.t[last] < 0.3 ? { box: track.bbox[last], score: track.score[last] } : null; }
    const a = after - 1, gap = track.t[after] - track.t[a], mix = gap > 0 ? (t - track.t[a]) / gap : 1;
    if (gap > 1.6 && Math.min(t - track.t[a], track.t[after] - t) > 0.3) return null;  // nobody looked in between: claim nothing
    return {
      box: track.bbox[a].map((value, i) => value + (track.bbox[after][i] - value) * mix),
      score: mix < 0.5 ? track.score[a] : track.score[after],
    };
  }

  function draw(t) {
    if (!canvas || !facts || !facts.frame) return;
    const ratio = window.devicePixelRatio || 1, width = stage.clientWidth, height = stage.clientHeight;
    if (canvas.width !== Math.round(width * ratio)) canvas.width = Math.round(width * ratio);
    if (canvas.height !== Math.round(height * ratio)) canvas.height = Math.round(height * ratio);
    const pen = canvas.getContext("2d");
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, height);
    if (!outlines || video && video.readyState === 0) return;  // no outline without a picture under it
    const scale = Math.min(width / facts.frame.width, height / facts.frame.height);
    const left = (width - facts.frame.width * scale) / 2, top = (height - facts.frame.height * scale) / 2;
    facts.tracks.forEach((track, place) => {
      const found = boxAt(track, t);
      if (!found) return;
      const [x0, y0, x1, y1] = found.box.map((value, i) => value * scale + (i % 2 ? top : left));
      const ink = ["#ff9a66", "#6cbcf2", "#dc95cc", "#4fd0ad", "#e8c14c", "#b5c3d4"][place % 6];
      pen.lineWidth = 5; pen.strokeStyle = "rgb(0 0 0 / .55)"; pen.setLineDash([]);
      pen.strokeRect(x0, y0, x1 - x0, y1 - y0);
      pen.lineWidth = 2.5; pen.strokeStyle = ink; pen.setLineDash(DASHES[place % 6]);
      pen.strokeRect(x0, y0, x1 - x0, y1 - y0);
      pen.setLineDash([]);
      pen.font = "600 13px system-ui, sans-serif";
      const text = "Face " + track.id + "  " + found.score.toFixed(2), wide = pen.measureText(text).width + 14;
      const tagTop = y0 > 24 ? y0 - 23 : Math.min(y1 + 3, height - 22);
      pen.fillStyle = "rgb(8 12 18 / .82)";
      pen.fillRect(x0 - 1, tagTop, wide, 21);
      pen.fillStyle = ink;
      pen.fillText(text, x0 + 6, tagTop + 15);
    });
  }

  // --- chart ------------------------------------------------------------------------------------------------------
  function columns() {
    const times = [...new Set(facts.tracks.flatMap((track) => track.t))].sort((a, b) => a - b);
    const rows = facts.tracks.map((track) => {
      const at = new Map(track.t.map((t, i) => [t, track.score[i]]));
      return times.map((t) => (at.has(t) ? at.get(t) : undefined));
    });
    return [times, ...rows];
  }

  function drawGround(u) {
    const pen = u.ctx, { left, top, width, height } = u.bbox, ratio = window.devicePixelRatio || 1;
    pen.save();
    pen.beginPath(); pen.rect(left, top, width, height); pen.clip();
    facts.segments.forEach((segment) => {
      const a = u.valToPos(segment.start, "x", true), b = u.valToPos(segment.end, "x", true);
      pen.fillStyle = colour("--manipulated-fill"); pen.globalAlpha = 0.1;
      pen.fillRect(a, top, Math.max(b - a, 2), height);
    });
    pen.globalAlpha = 1;
    lines().forEach(({ value, ink, dash }) => {
      const y = u.valToPos(value, "y", true);
      pen.strokeStyle = colour(ink);
      pen.lineWidth = 1.5 * ratio; pen.setLineDash(dash.map((d) => d * ratio));
      pen.beginPath(); pen.moveTo(left, y); pen.lineTo(left + width, y); pen.stroke();
    });
    pen.restore();
  }

  function lines() {
    const known = [
      { name: "review", ink: "--suspicious", sign: "◆", dash: [6, 4] },
      { name: "fake", ink: "--manipulated", sign: "▲", dash: [] },
    ];
    return known.map((line) => ({ ...line, value: facts.thresholds ? facts.thresholds[line.name] : null })).filter((line) => typeof line.value === "number");
  }

  // the lines are named beside the curves, never on them; the signs are those of the verdict words
  function drawLabels(u) {
    const pen = u.ctx, { left, top, width, height } = u.bbox, ratio = window.devicePixelRatio || 1;
    let free = top + height;
    pen.save();
    pen.font = "600 " + 11 * ratio + "px system-ui, sans-serif"; pen.textAlign = "left"; pen.textBaseline = "middle";
    lines().forEach(({ value, ink, sign }) => {  // from below: the review line comes first
      const y = Math.min(u.valToPos(value, "y", true), free);
      free = y - 13 * ratio;
      pen.fillStyle = colour(ink);
      pen.fillText(sign + " " + value.toFixed(2), left + width + 5 * ratio, y);
    });
    pen.restore();
  }

  function makeChart() {
    if (!chartPlace || !window.uPlot || !facts.tracks.length) return;
    if (chart) chart.destroy();
    const axis = { stroke: colour("--soft"), grid: { stroke: colour("--rule"), width: 1 }, ticks: { stroke: colour("--rule") }, font: "12px system-ui, sans-serif" };
    chart = new window.uPlot({
      width: chartPlace.clientWidth, height: chartPlace.clientHeight - 10, legend: { show: false },
      padding: [10, GUTTER_PX, 0, 0],
      scales: { x: { time: false, range: () => [0, duration] }, y: { range: () => [0, 1] } },
      cursor: { drag: { x: false, y: false }, points: { size: 7 } },
      axes: [{ ...axis, size: 30, values: (_u, ticks) => ticks.map((t) => t + " s") }, { ...axis, size: AXIS_PX, values: (_u, ticks) => ticks.map((v) => v.toFixed(1)) }],
      series: [{}, ...facts.tracks.map((track, place) => ({
        label: "Face " + track.id, stroke: trackColour(place), width: 2.2, dash: DASHES[place % 6], spanGaps: true,
        points: { show: true, size: 6, fill: trackColour(place), stroke: trackColour(place) },
      }))],
      hooks: { drawClear: [drawGround], draw: [drawLabels] },
    }, columns(), chartPlace);
    const head = document.createElement("span");
    head.className = "playhead";
    chart.over.appendChild(head);
    chart.over.addEventListener("click", (event) => seek(chart.posToVal(event.clientX - chart.over.getBoundingClientRect().left, "x")));
    show();
  }

  // --- claim: hold the video while it is open ---------------------------------------------------------------------
  function hold() {
    const address = page.dataset.claim;
    if (!address || document.hidden) return;
    fetch(address, { method: "POST", body: new URLSearchParams({ csrf: page.dataset.csrf }), credentials: "same-origin", redirect: "error" }).then((answer) => {
      page.dataset.held = answer.ok ? "yes" : "no";
      if (answer.status !== 409) return;
      const place = document.getElementById("conflict");
      place.textContent = "Somebody else opened or decided this video meanwhile. Your decision would be refused; ";
      const link = document.createElement("a");
      link.href = location.href; link.textContent = "load the page again";
      place.append(link, ".");
      place.hidden = false;
      all(".choice:not([data-skip])").forEach((button) => { button.disabled = true; });
    }).catch(() => { page.dataset.held = "no"; });
  }

  // --- wiring -----------------------------------------------------------------------------------------------------
  const acts = {
    j: () => step(1), k: () => step(-1), w: worst,
    b: () => toggle("blur"), o: () => toggle("outlines"),
    " ": () => { if (video) { if (video.paused) video.play().catch(() => {}); else video.pause(); } },
    h: () => { const button = one("[data-heatmap]"); if (button) button.click(); },
  };

  function toggle(name) {
    const button = one("[data-toggle=" + name + "]");
    if (name === "outlines") { outlines = !outlines; draw(now()); }
    if (name === "blur") {
      const on = stage.classList.toggle("is-blurred");
      all("img.thumb, .moment img, .heat-pictures img, .heat-clip").forEach((picture) => picture.classList.toggle("is-blurred", on));
    }
    button.setAttribute("aria-pressed", String(name === "outlines" ? outlines : stage.classList.contains("is-blurred")));
  }

  document.addEventListener("keydown", (event) => {
    if (document.documentElement.dataset.keys === "off" || event.ctrlKey || event.metaKey || event.altKey) return;
    const target = event.target, help = document.getElementById("help");
    if (help && help.open || /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName)) return;
    if (event.key === " " && (/^(BUTTON|A|SUMMARY)$/.test(target.tagName) || target === video)) return;  // the space bar keeps its own meaning there
    const act = acts[event.key];
    if (act) { event.preventDefault(); act(); }
  });
  all("[data-step]").forEach((button) => button.addEventListener("click", () => step(Number(button.dataset.step))));
  all("[data-toggle]").forEach((button) => button.addEventListener("click", () => toggle(button.dataset.toggle)));
  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-seek]");
    if (!button) return;
    if (video) video.pause();
    seek(Number(button.dataset.seek));
    all(".lane").forEach((lane) => lane.classList.toggle("is-current", lane.dataset.track === button.dataset.for));
  });
  all("[data-strip]").forEach((strip) => strip.addEventListener("click", (event) => {
    const place = strip.getBoundingClientRect();
    seek(((event.clientX - place.left) / place.width) * duration);
  }));
  if (video) {
    const fetching = document.getElementById("fetching");
    const fetched = () => { if (fetching) fetching.hidden = true; };
    const broken = () => {
      fetched();
      document.getElementById("no-media").hidden = false;
      fetch(video.src, { credentials: "same-origin", headers: { Range: "bytes=0-0" } }).then((answer) => {  // the server's reason, if it has one
        if (answer.status === 404) answer.text().then((reason) => { document.getElementById("no-media-reason").textContent = reason; });
      }).catch(() => {});
    };
    if (video.readyState > 0) fetched();
    video.addEventListener("loadedmetadata", fetched);
    video.addEventListener("error", broken);
    if (video.error) broken();
    for (const name of ["timeupdate", "seeked", "loadedmetadata", "pause"]) video.addEventListener(name, show);
    const run = () => { show(); if (!video.paused) requestAnimationFrame(run); };
    video.addEventListener("play", run);
  }
  window.addEventListener("resize", () => { if (chart) chart.setSize({ width: chartPlace.clientWidth, height: chartPlace.clientHeight - 10 }); show(); });
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { if (facts) makeChart(); });
  document.addEventListener("visibilitychange", hold);
  hold();
  setInterval(hold, 60000);
  fetch(page.dataset.evidence, { credentials: "same-origin" }).then((answer) => answer.json()).then((got) => {
    facts = got;
    makeChart();
    show();
    page.dataset.ready = "yes";
  }).catch(() => { page.dataset.ready = "no"; });
})();
