/** The page: photographs in, a sorted table with heat maps out. */

import { Scorer, type Result } from "../index.ts";
import { chosen, dropped, looksLikePicture, type Named } from "./files.ts";
import { drawHeat } from "./heat.ts";
import { asCsv, groupSimilar, ordered, type Order, type Row } from "./rows.ts";

/** `site.json`, which `pocketiqa web` writes. */
interface Site {
  model: string;
  runtime: string;
  wasm: string;
  /** Bytes of model and runtime as they are sent. */
  bytes: number;
  /** A picture and its score by `pocketiqa score`. */
  check: { picture: string; score: number };
}

const LARGEST_DIFFERENCE = 1e-3;
const ROWS_AT_ONCE = 200;
const MOST_ENDS = 4;
const REDRAW_MS = 700;
// A screen reader says each change: not for each photograph.
const SAY_MS = 4000;

function byId<Kind extends HTMLElement = HTMLElement>(id: string): Kind {
  return document.getElementById(id) as Kind;
}

function element<Name extends keyof HTMLElementTagNameMap>(
  name: Name,
  properties: Partial<HTMLElementTagNameMap[Name]> = {},
  ...children: (Node | string)[]
): HTMLElementTagNameMap[Name] {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

const status = byId("status");
const progress = byId<HTMLProgressElement>("progress");
const warning = byId("warning");
const viewer = byId<HTMLDialogElement>("viewer");

let rows: Row[] = [];
let order: Order = "best";
let most = ROWS_AT_ONCE;
let shown: Row[] = [];
let viewed = 0;
let isRunning = false;
let isStopped = false;
let skipped = 0;
let lastDrawn = 0;
let redrawMs = REDRAW_MS;
let lastSaid = 0;
const thumbnails = new Map<Row, string>();

function say(text: string, now = true): void {
  if (!now && Date.now() - lastSaid < SAY_MS) return;
  lastSaid = Date.now();
  status.textContent = text;
}

// --- The model

const megabytes = (bytes: number): string => (bytes / 1e6).toFixed(1);

async function start(): Promise<Scorer> {
  const site = (await (await fetch("site.json")).json()) as Site;
  byId("loading").hidden = false;
  const onProgress = (bytes: number): void => {
    progress.value = Math.min(1, bytes / site.bytes);
    byId("count").textContent = `Loading the model: ${megabytes(bytes)} of ${megabytes(site.bytes)} MB, once`;
  };
  const scorer = await Scorer.load(site.model, { runtime: site.runtime, wasm: site.wasm, onProgress });
  const picture = await (await fetch(site.check.picture)).blob();
  const { score } = await scorer.score(picture);
  if (!(Math.abs(score - site.check.score) <= LARGEST_DIFFERENCE)) {
    warning.hidden = false;
    warning.textContent =
      `This browser gives a test picture ${score.toFixed(3)} instead of ${site.check.score.toFixed(3)}: ` +
      "it alters pixels that pages read, perhaps as a protection from tracking. Scores are not to be trusted here.";
  }
  const { name, scale } = scorer.contract;
  byId("model").textContent = `Model ${name}. Scale: ${scale}.`;
  byId("loading").hidden = true;
  // After the model has come: what the browser keeps for the next visit is then not sent a second time.
  if ("serviceWorker" in navigator) await navigator.serviceWorker.register("sw.js", { type: "classic" }).catch(() => {});
  return scorer;
}

const loaded = start().catch((error: Error) => {
  warning.hidden = false;
  warning.textContent = `The model could not be loaded: ${error.message}`;
  byId("loading").hidden = true;
  throw error;
});
loaded.catch(() => {}); // said above, and again to whoever waits for it

// --- Scoring

function add(files: Named[]): void {
  const pictures = files.filter(({ file }) => looksLikePicture(file));
  skipped += files.length - pictures.length;
  rows.push(...pictures.map(({ name, file }): Row => ({ name, file, reason: "", group: 0, isBest: true })));
  if (pictures.length === 0) return say(files.length ? "No photographs among these files." : "No files in there.");
  void run();
}

const isOpen = (row: Row): boolean => row.result === undefined && row.reason === "";

async function run(): Promise<void> {
  isStopped = false;
  if (isRunning) return;
  isRunning = true;
  try {
    const scorer = await loaded;
    byId("loading").hidden = false;
    byId("stop").hidden = false;
    // Looked for anew each time: more photographs may have been dropped meanwhile.
    for (let row = rows.find(isOpen); row && !isStopped; row = rows.find(isOpen)) {
      await scorer.score(row.file, { preview: true }).then(
        (result: Result) => (row!.result = result),
        (error: Error) => (row!.reason = error.message || "it could not be scored"),
      );
      const done = rows.filter((one) => !isOpen(one)).length;
      progress.value = done / rows.length;
      const text = `Scored ${done} of ${rows.length}`;
      byId("count").textContent = text;
      say(text, false);
      if (Date.now() - lastDrawn > redrawMs) draw();
    }
    rows = rows.filter((row) => !isOpen(row));
    draw();
    say(`${isStopped ? "Stopped. " : ""}${summary()}`);
  } catch {
    rows = rows.filter((row) => !isOpen(row)); // why stands in the warning
  } finally {
    isRunning = false;
    byId("loading").hidden = true;
    byId("stop").hidden = true;
  }
}

function summary(): string {
  const failed = rows.filter((row) => row.result === undefined).length;
  const parts = [`${rows.length - failed} photographs scored`];
  if (failed) parts.push(`${failed} not scored`);
  if (skipped) parts.push(`${skipped} other files left out`);
  return `${parts.join(", ")}.`;
}

// --- Drawing

function draw(): void {
  lastDrawn = Date.now();
  const focused = document.activeElement?.closest<HTMLElement>("[data-name]");
  groupSimilar(rows);
  const known = rows.filter((row) => !isOpen(row));
  const onlyBest = byId<HTMLInputElement>("only").checked;
  shown = ordered(known, order).filter((row) => !onlyBest || row.isBest);
  const scored = ordered(known, "best").filter((row) => row.result !== undefined);
  byId("results").hidden = known.length === 0;
  byId("summary").textContent = summary();
  const ends = Math.min(MOST_ENDS, Math.ceil(scored.length / 2));
  byId("ends").hidden = scored.length < 2;
  byId("best").replaceChildren(...scored.slice(0, ends).map(tile));
  byId("worst").replaceChildren(...scored.slice(ends).slice(-ends).reverse().map(tile));
  byId("rows").replaceChildren(...shown.slice(0, most).map(line));
  byId("more").hidden = shown.length <= most;
  byId("more").textContent = `Show more (${shown.length - most} left)`;
  const directions = { best: "descending", worst: "ascending", name: "none" } as const;
  byId("by-score").setAttribute("aria-sort", directions[order]);
  byId("by-name").setAttribute("aria-sort", order === "name" ? "ascending" : "none");
  // Of thousands of photographs most of the time is for scoring them.
  redrawMs = Math.max(REDRAW_MS, 10 * (Date.now() - lastDrawn));
  // The element that had the focus is gone; its photograph is there again.
  const list = focused?.parentElement?.id;
  if (list) byId(list).querySelector<HTMLElement>(`[data-name="${CSS.escape(focused.dataset["name"]!)}"] button`)?.focus();
}

function tile(row: Row): HTMLElement {
  return named(row, element("li", {}, opener(row), element("span", { className: "score", textContent: scoreOf(row) })));
}

function named(row: Row, made: HTMLElement): HTMLElement {
  made.dataset["name"] = row.name;
  return made;
}

const scoreOf = (row: Row): string => row.result?.score.toFixed(3) ?? "no score";

/** The small picture, a button that opens the large one. */
function opener(row: Row): HTMLElement {
  if (row.result === undefined) return element("span", { className: "picture none", ariaHidden: "true" }, "?");
  if (!thumbnails.has(row)) thumbnails.set(row, URL.createObjectURL(row.result.thumbnail!));
  const heat = element("canvas", { className: "overlay" });
  drawHeat(heat, row.result);
  const { width, height } = row.result;
  const frame = element("span", { className: "frame" }, element("img", { src: thumbnails.get(row)!, alt: "" }), heat);
  // As large as its place, which is 4 to 3, allows.
  frame.classList.add(3 * width > 4 * height ? "wide" : "tall");
  frame.style.aspectRatio = `${width} / ${height}`;
  const button = element("button", { type: "button", className: "picture" }, frame);
  button.ariaLabel = `Show ${row.name}, score ${scoreOf(row)}`;
  button.onclick = () => open(row);
  return button;
}

function line(row: Row): HTMLElement {
  const { result } = row;
  const name = element("th", { scope: "row" }, element("span", { className: "name", textContent: row.name }));
  const note = result ? result.note : row.reason;
  if (note) name.append(element("span", { className: "note", textContent: note }));
  const score = element("td", { className: "score" });
  if (result) {
    const bar = element("span", { className: "bar", ariaHidden: "true" });
    bar.style.setProperty("--part", `${100 * result.score}%`);
    score.append(scoreOf(row), bar);
  } else score.append("no score");
  const similar = row.group ? `group ${row.group}${row.isBest ? ", best" : ""}` : "";
  const cells = element(
    "tr",
    { className: row.group && row.isBest ? "winner" : "" },
    element("td", {}, opener(row)),
    name,
    score,
    element("td", { className: "similar", textContent: similar }),
    element("td", { className: "size", textContent: result ? `${result.width} × ${result.height}` : "" }),
  );
  return named(row, cells);
}

// --- The large picture

function open(row: Row): void {
  viewed = shown.indexOf(row);
  // Best and worst stand above the table, which may leave them out.
  if (viewed < 0) viewed = (shown = [...shown, row]).length - 1;
  view();
  viewer.showModal();
}

function view(): void {
  const row = shown[viewed]!;
  const image = byId<HTMLImageElement>("large");
  if (![...thumbnails.values()].includes(image.src)) URL.revokeObjectURL(image.src);
  image.src = URL.createObjectURL(row.file);
  image.onload = () => {
    const { result } = row;
    // A browser that does not turn this file as we do: then the small picture, which the map fits.
    if (result && image.src !== thumbnails.get(row) && image.naturalWidth !== result.width) {
      image.src = thumbnails.get(row)!;
    }
  };
  image.alt = row.name;
  const heat = byId<HTMLCanvasElement>("large-heat");
  heat.hidden = row.result === undefined;
  if (row.result) drawHeat(heat, row.result);
  byId("viewer-name").textContent = row.name;
  byId("viewer-score").textContent = row.result ? `Score ${scoreOf(row)}` : row.reason;
}

function step(by: number): void {
  viewed = Math.min(shown.length - 1, Math.max(0, viewed + by));
  view();
}

// --- What the user does

function pick(id: string): void {
  const input = byId<HTMLInputElement>(`${id}-input`);
  byId(id).onclick = () => input.click();
  input.onchange = () => {
    add(chosen(input.files ?? []));
    input.value = ""; // so that the same choice is one again
  };
}

function download(): void {
  const address = URL.createObjectURL(new Blob([asCsv(ordered(rows, order))], { type: "text/csv" }));
  element("a", { href: address, download: "scores.csv" }).click();
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
}

function clear(): void {
  isStopped = true;
  for (const address of thumbnails.values()) URL.revokeObjectURL(address);
  thumbnails.clear();
  rows = [];
  skipped = 0;
  most = ROWS_AT_ONCE;
  draw();
  say("Cleared.");
  byId("files").focus();
}

function sortBy(next: Order): void {
  order = next;
  draw();
}

pick("files");
pick("folder");
byId("folder").hidden = !("webkitdirectory" in byId("folder-input")); // some telephones have no folders
byId("stop").onclick = () => (isStopped = true);
byId("csv").onclick = download;
byId("clear").onclick = clear;
byId("more").onclick = () => {
  most += ROWS_AT_ONCE;
  draw();
};
byId("only").onchange = draw;
byId<HTMLInputElement>("heat").onchange = (event) => {
  const isOn = (event.target as HTMLInputElement).checked;
  document.body.classList.toggle("with-heat", isOn);
  byId<HTMLInputElement>("viewer-heat").checked = isOn;
};
byId<HTMLInputElement>("viewer-heat").onchange = () => byId("heat").click();
byId("sort-score").onclick = () => sortBy(order === "best" ? "worst" : "best");
byId("sort-name").onclick = () => sortBy("name");
byId("previous").onclick = () => step(-1);
byId("next").onclick = () => step(1);
byId("close").onclick = () => viewer.close();
viewer.onkeydown = (event) => {
  if (event.key === "ArrowLeft") step(-1);
  if (event.key === "ArrowRight") step(1);
};
document.ondragover = (event) => {
  event.preventDefault();
  document.body.classList.add("dragged");
};
document.ondragleave = (event) => {
  if (event.relatedTarget === null) document.body.classList.remove("dragged");
};
document.ondrop = async (event) => {
  event.preventDefault();
  document.body.classList.remove("dragged");
  if (event.dataTransfer) add(await dropped(event.dataTransfer));
};
document.onpaste = (event) => add(chosen(event.clipboardData?.files ?? []));
