// node drive.mjs PLAN: visits a page in headless Chromium and writes what it saw; for tests/distill/browser.
// PLAN is JSON: chromium, url (the npm package is served below it, at package/), server (id of its process, ended for
// the visit without a network), photographs, out (folder), and, to look at, pictures: whether to take screenshots.
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { chromium } from "playwright-core";

const plan = JSON.parse(process.argv[2]);
const seen = { requests: [], errors: [], keyboard: {} };
const minutes = 60_000;

const browser = await chromium.launch({ executablePath: plan.chromium, args: ["--disable-gpu"], timeout: 9 * minutes });
const context = await browser.newContext({ acceptDownloads: true, viewport: { width: 1180, height: 900 } });
context.setDefaultTimeout(9 * minutes);
context.on("request", (request) => seen.requests.push(request.url()));
const page = await context.newPage();
page.on("pageerror", (error) => seen.errors.push(String(error)));
page.on("console", (message) => {
  const isAsked = message.location().url.endsWith("missing.onnx");
  if (message.type() === "error" && !isAsked) seen.errors.push(message.text());
});

async function score(photographs, csv) {
  await page.setInputFiles("#files-input", photographs);
  const end = await page.waitForFunction(() => {
    const [status, warning] = ["status", "warning"].map((id) => document.getElementById(id));
    if (/ scored/.test(status.textContent)) return "scored";
    return /could not be loaded/.test(warning.textContent) && warning.textContent;
  });
  if ((await end.jsonValue()) !== "scored") throw new Error(await end.jsonValue());
  const [download] = await Promise.all([page.waitForEvent("download"), page.click("#csv")]);
  await download.saveAs(join(plan.out, csv));
}

async function shot(name, width, height, scheme) {
  await page.setViewportSize({ width, height });
  await page.emulateMedia({ colorScheme: scheme });
  await page.waitForTimeout(300);
  await page.screenshot({ path: join(plan.out, `${name}.png`) });
}

await page.goto(plan.url);
await page.keyboard.press("Tab");
seen.keyboard.first = await page.evaluate(() => document.activeElement.id);
await score(plan.photographs, "scores.csv");
seen.warning = await page.textContent("#warning");
seen.isolated = await page.evaluate(() => crossOriginIsolated);
await page.evaluate(() => navigator.serviceWorker.ready.then(() => undefined));
seen.first = seen.requests.length;

// The npm package as another page would use it, on pixels: those of "waves" in docs/preprocess.md.
seen.package = await page.evaluate(async () => {
  const site = await (await fetch("site.json")).json();
  const { Scorer } = await import(new URL("package/index.js", location.href).href);
  const scorer = await Scorer.load(site.model, site);
  const waves = new ImageData(200, 100);
  for (let y = 0; y < 100; y++) {
    for (let x = 0; x < 200; x++) {
      const colour = [3 * x + 2 * y + Math.floor((x * y) / 128), x + 5 * y, Math.floor((x * x + y) / 64)];
      waves.data.set([...colour.map((value) => value % 256), 255], 4 * (200 * y + x));
    }
  }
  const said = (promise) => promise.then(() => "", (error) => error.message);
  const [pixels, bitmap] = [await scorer.score(waves), await scorer.score(await createImageBitmap(waves))];
  const [empty, { name }] = [await said(scorer.score(new Blob([]))), scorer.contract];
  scorer.close();
  const missing = await said(Scorer.load("missing.onnx", site));
  return { pixels, bitmap: bitmap.score, empty, missing, name, closed: await said(scorer.score(waves)) };
});

// By keys alone: into the first photograph, to the next one and back.
await page.focus("#rows button.picture");
const label = () => page.evaluate(() => document.activeElement.ariaLabel ?? document.activeElement.id);
seen.keyboard.photograph = await label();
await page.keyboard.press("Enter");
const viewed = () => page.textContent("#viewer-name");
seen.keyboard.opened = await viewed();
await page.keyboard.press("ArrowRight");
seen.keyboard.next = await viewed();
await page.keyboard.press("Escape");
seen.keyboard.closed = !(await page.evaluate(() => document.getElementById("viewer").open));
seen.keyboard.back = await label();
seen.nameless = await page.evaluate(
  () => [...document.querySelectorAll("button, input:not([hidden]), progress")].filter((one) => {
    const label = one.ariaLabel || one.textContent.trim() || one.labels?.[0]?.textContent.trim();
    return !label;
  }).length,
);
seen.rows = await page.$$eval("#rows tr", (rows) => rows.map((row) => row.dataset.name));
await page.setViewportSize({ width: 390, height: 844 });
seen.overflow = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
seen.mapped = await page.$$eval("#rows canvas.overlay", (maps) => maps.length);

if (plan.pictures) {
  await shot("phone-light", 390, 844, "light");
  await page.evaluate(() => document.getElementById("table-title").scrollIntoView());
  await shot("phone-dark", 390, 844, "dark");
  await page.evaluate(() => scrollTo(0, 0));
  await shot("desktop-light", 1180, 1000, "light");
  await page.click("label:has(#heat)");
  await page.evaluate(() => document.getElementById("table-title").scrollIntoView());
  await shot("desktop-dark-heat", 1180, 900, "dark");
  await page.click("#rows button.picture");
  await shot("viewer-heat", 1180, 900, "light");
  await page.keyboard.press("Escape");
}

process.kill(plan.server);
await page.reload();
await score(plan.photographs.slice(0, 1), "offline.csv");
await browser.close();
writeFileSync(join(plan.out, "seen.json"), JSON.stringify(seen));
