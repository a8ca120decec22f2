// The gallery of `pocketiqa score --gallery`: thousands of photographs, of which only those in view are elements.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("rows").textContent);
  const rows = data.rows.map(([name, score, status, reason, path, href, thumb, extra], index) =>
    ({ name, score, status, reason, path, href, thumb, extra, index }));
  const byId = (id) => document.getElementById(id);
  const [grid, space, info, viewer] = ["grid", "space", "info", "viewer"].map(byId);
  const text = byId("text"), low = byId("low"), high = byId("high"), sort = byId("sort"), only = byId("only");
  const collator = new Intl.Collator(undefined, { numeric: true, sensitivity: "base" });
  const key = "pocketiqa-gallery-" + data.id;
  const marked = new Set(stored());
  let shown = [], current = 0, opened = false, columns = 1, cell = { width: 0, height: 0 }, tiles = new Map();

  function stored() {
    try { return JSON.parse(localStorage.getItem(key) || "[]"); } catch { return []; }
  }
  function store() {
    try { localStorage.setItem(key, JSON.stringify([...marked])); } catch { /* marks last as long as the page */ }
  }
  const scoreText = (row) => row.score === null ? "no score" : row.score.toFixed(3);
  const words = (row) => [row.path, row.reason, ...row.extra.map((pair) => pair[1])].join("\n").toLowerCase();

  function element(name, properties, ...children) {
    const made = Object.assign(document.createElement(name), properties);
    made.append(...children);
    return made;
  }

  // --- Which photographs, in which order
  function choose(keep) {
    const before = keep ? shown[current] : undefined;
    const wanted = text.value.trim().toLowerCase(), from = bound(low, 0), to = bound(high, 1);
    shown = rows.filter((row) =>
      (row.score === null ? only.value !== "scored" && from <= 0 && to >= 1 : row.score >= from && row.score <= to)
      && (only.value !== "unscored" || row.score === null)
      && (only.value !== "marked" || marked.has(row.index))
      && (!wanted || (row.words ??= words(row)).includes(wanted)));
    const sign = sort.value === "best" ? -1 : 1;
    if (sort.value === "name") shown.sort((a, b) => collator.compare(a.name, b.name));
    else if (sort.value !== "given") {
      shown.sort((a, b) => a.score === null || b.score === null
        ? (a.score === null) - (b.score === null) : sign * (a.score - b.score) || a.index - b.index);
    }
    current = Math.max(0, before === undefined ? 0 : shown.indexOf(before));
    info.textContent = `${shown.length} of ${rows.length} shown` + (marked.size ? `, ${marked.size} marked` : "");
    byId("save").disabled = !marked.size;
    byId("none").hidden = shown.length > 0;
    for (const bar of document.querySelectorAll("#bars button")) {
      bar.classList.toggle("out", bar.dataset.to <= from || bar.dataset.from >= to);
    }
    layout();
  }
  function bound(field, otherwise) {
    const value = parseFloat(field.value);
    return Number.isFinite(value) ? value : otherwise;
  }

  // --- The grid: rows of tiles at fixed heights, of which those near the window exist
  function layout() {
    const width = space.clientWidth, wanted = width < 520 ? 108 : 172, gap = width < 520 ? 8 : 14;
    columns = Math.max(1, Math.floor((width + gap) / (wanted + gap)));
    const tile = Math.floor((width - gap * (columns - 1)) / columns);
    cell = { across: width, width: tile, step: tile + gap, height: Math.round(tile * 0.75) + 46 + gap, gap };
    space.style.height = Math.ceil(shown.length / columns) * cell.height + "px";
    for (const tileElement of tiles.values()) tileElement.remove();
    tiles = new Map();
    draw();
  }
  function draw() {
    const top = space.getBoundingClientRect().top;
    const first = Math.max(0, Math.floor((-top - 600) / cell.height)) * columns;
    const last = Math.min(shown.length, Math.ceil((innerHeight - top + 600) / cell.height) * columns);
    for (const [place, tile] of tiles) if (place < first || place >= last) { tile.remove(); tiles.delete(place); }
    for (let place = first; place < last; place++) {
      if (!tiles.has(place)) {
        const tile = makeTile(shown[place], place);
        tiles.set(place, tile);
        space.append(tile);
      }
    }
    mark();
  }
  function makeTile(row, place) {
    const picture = row.thumb
      ? element("img", { src: row.thumb, alt: "", loading: "eager", decoding: "async", draggable: false })
      : element("span", { className: "lost", textContent: row.reason || row.status });
    const tile = element("button", { className: "tile", type: "button", tabIndex: -1 }, picture,
      element("b", { textContent: scoreText(row) }), element("span", { className: "name", textContent: row.name }));
    tile.title = row.path;
    tile.setAttribute("aria-label", `${row.name}, ${scoreText(row)}`);
    tile.style.cssText = `left:${place % columns * cell.step}px;top:${Math.floor(place / columns) * cell.height}px;`
      + `width:${cell.width}px;height:${cell.height - cell.gap}px`;
    tile.addEventListener("click", () => { current = place; open(); });
    return tile;
  }
  function mark() {
    for (const [place, tile] of tiles) {
      tile.classList.toggle("current", place === current);
      tile.classList.toggle("marked", marked.has(shown[place].index));
      tile.tabIndex = place === current ? 0 : -1;
    }
  }
  function go(place) {
    if (!shown.length) return;
    current = Math.min(shown.length - 1, Math.max(0, place));
    if (opened) { show(); return; }
    const top = space.getBoundingClientRect().top + Math.floor(current / columns) * cell.height;
    const bar = byId("controls").offsetHeight;
    // At once: what comes into view is drawn, and takes the focus, now.
    const by = top < bar ? top - bar - 8 : Math.max(0, top + cell.height - innerHeight + 8);
    scrollBy({ top: by, behavior: "instant" });
    draw();
    tiles.get(current)?.focus({ preventScroll: true });
  }

  // --- One photograph, large
  function open() {
    if (!shown.length) return;
    opened = true;
    viewer.showModal();
    viewer.focus();  // not a button, which Enter would press
    show();
  }
  function show() {
    const row = shown[current], large = byId("large"), link = byId("file");
    byId("title").textContent = row.name;
    byId("path").textContent = row.path;
    byId("score").textContent = scoreText(row) + (row.reason ? ` (${row.reason})` : "");
    byId("place").textContent = `${current + 1} of ${shown.length}`;
    byId("extra").replaceChildren(...row.extra.flatMap(([name, value]) =>
      [element("dt", { textContent: name }), element("dd", { textContent: value })]));
    byId("mark").textContent = marked.has(row.index) ? "Unmark (m)" : "Mark (m)";
    link.hidden = !row.href;
    if (row.href) link.href = row.href; else link.removeAttribute("href");
    large.hidden = !row.thumb;
    byId("gone").hidden = true;
    if (!row.thumb) return;
    large.alt = row.name;
    // The file itself where the page can reach it, else what the page holds of it.
    large.onerror = () => {
      if (large.getAttribute("src") !== row.thumb) { large.src = row.thumb; byId("gone").hidden = false; }
    };
    large.src = row.href || row.thumb;
  }
  function toggleMark() {
    const row = shown[current];
    if (!row) return;
    if (!marked.delete(row.index)) marked.add(row.index);
    store();
    if (only.value === "marked") choose(true); else mark();
    info.textContent = `${shown.length} of ${rows.length} shown` + (marked.size ? `, ${marked.size} marked` : "");
    byId("save").disabled = !marked.size;
    if (opened && shown.length) show();
  }
  function save() {
    const paths = rows.filter((row) => marked.has(row.index)).map((row) => row.path);
    // A line end in a name would make two of it: then each path ends with NUL, as for score --null.
    const end = paths.some((path) => path.includes("\n")) ? "\0" : "\n";
    const url = URL.createObjectURL(new Blob(paths.map((path) => path + end), { type: "text/plain" }));
    element("a", { href: url, download: "marked.txt" }).click();
    setTimeout(() => URL.revokeObjectURL(url), 10000);
  }

  // --- Best, worst, histogram
  function strip(id, order) {
    const scored = rows.filter((row) => row.score !== null);
    const sign = order === "best" ? -1 : 1;
    scored.sort((a, b) => sign * (a.score - b.score) || a.index - b.index);
    byId(id).append(...scored.slice(0, 12).map((row) => {
      const one = element("button", { type: "button", className: "small", title: row.path },
        element("img", { src: row.thumb, alt: row.name, decoding: "async" }), element("b", { textContent: scoreText(row) }));
      one.addEventListener("click", () => {
        clear();
        sort.value = order;
        choose();
        current = shown.indexOf(row);
        go(current);
        open();
      });
      return one;
    }));
  }
  function histogram() {
    const bins = 20, counts = new Array(bins).fill(0);
    for (const row of rows) if (row.score !== null) counts[Math.min(bins - 1, Math.floor(row.score * bins))]++;
    const most = Math.max(1, ...counts);
    byId("bars").append(...counts.map((count, bin) => {
      const from = bin / bins, to = (bin + 1) / bins;
      const name = `${count} photographs from ${from.toFixed(2)} to ${to.toFixed(2)}`;
      const bar = element("button", { type: "button", title: name, disabled: !count }, element("i", {}));
      bar.firstChild.style.height = (count ? Math.max(3, 100 * count / most) : 0) + "%";
      Object.assign(bar.dataset, { from, to });
      bar.setAttribute("aria-label", name);
      bar.addEventListener("click", () => {
        const same = bound(low, 0) === from && bound(high, 1) === to;
        low.value = same ? "" : from.toFixed(2);
        high.value = same ? "" : to.toFixed(2);
        choose();
      });
      return bar;
    }));
  }
  function clear() {
    text.value = low.value = high.value = "";
    only.value = "all";
  }

  // --- Keyboard
  const steps = {
    ArrowLeft: () => -1, ArrowRight: () => 1, ArrowUp: () => opened ? -1 : -columns, ArrowDown: () => opened ? 1 : columns,
    PageUp: () => -columns * Math.max(1, Math.floor(innerHeight / cell.height) - 1),
    PageDown: () => columns * Math.max(1, Math.floor(innerHeight / cell.height) - 1),
    Home: () => -shown.length, End: () => shown.length,
  };
  const orders = { b: "best", w: "worst", n: "name", g: "given" };
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const typing = ["INPUT", "SELECT"].includes(event.target.tagName);
    if (event.key === "Escape" && typing) { event.target.blur(); return; }
    if (typing) return;
    if (event.key in steps) go(current + steps[event.key]());
    else if (event.key === "/") text.focus();
    else if (event.key === "m") toggleMark();
    else if (event.key === "Enter" && !opened && event.target === document.body) open();
    else if (event.key === "o" && shown[current]?.href) window.open(shown[current].href);
    else if (event.key in orders && !opened) { sort.value = orders[event.key]; choose(); go(0); }
    else return;
    event.preventDefault();
  });

  for (const field of [text, low, high]) field.addEventListener("input", () => choose());
  for (const field of [sort, only]) field.addEventListener("change", () => choose());
  byId("clear").addEventListener("click", () => { clear(); choose(); });
  byId("save").addEventListener("click", save);
  byId("mark").addEventListener("click", toggleMark);
  byId("before").addEventListener("click", () => go(current - 1));
  byId("after").addEventListener("click", () => go(current + 1));
  byId("close").addEventListener("click", () => viewer.close());
  viewer.addEventListener("close", () => { opened = false; go(current); });
  let waiting = false;
  addEventListener("scroll", () => {
    if (!waiting) { waiting = true; requestAnimationFrame(() => { waiting = false; draw(); }); }
  }, { passive: true });
  // The height follows from the width, and is none of its causes.
  new ResizeObserver(() => { if (space.clientWidth !== cell.across) layout(); }).observe(grid);
  histogram();
  strip("worst", "worst");
  strip("best", "best");
  choose();
})();
