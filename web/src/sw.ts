/**
 * Keeps the page for visits without a network.
 *
 * `pocketiqa web` writes `self.site` before this script: a version, and the files of the page. Those with a digest in
 * their name never change, so what the page has just loaded is taken from the browser's own cache.
 */

interface Kept {
  version: string;
  /** Files whose name holds their digest. */
  fixed: string[];
  files: string[];
}

const worker = self as unknown as ServiceWorkerGlobalScope & { site: Kept };
const PREFIX = "pocketiqa-";
const cacheName = `${PREFIX}${worker.registration.scope} ${worker.site.version}`;

async function keep(): Promise<void> {
  const cache = await caches.open(cacheName);
  const { files, fixed } = worker.site;
  await cache.addAll(fixed.map((file) => new Request(file, { cache: "force-cache" })));
  await cache.addAll(files.map((file) => new Request(file, { cache: "no-cache" })));
  await worker.skipWaiting();
}

async function takeOver(): Promise<void> {
  const mine = `${PREFIX}${worker.registration.scope} `;
  const old = (await caches.keys()).filter((key) => key.startsWith(mine) && key !== cacheName);
  await Promise.all(old.map((key) => caches.delete(key)));
  await worker.clients.claim();
}

async function answer(request: Request): Promise<Response> {
  const cache = await caches.open(cacheName);
  return (await cache.match(request, { ignoreSearch: true })) ?? fetch(request);
}

worker.addEventListener("install", (event) => event.waitUntil(keep()));
worker.addEventListener("activate", (event) => event.waitUntil(takeOver()));
worker.addEventListener("fetch", (event) => {
  if (event.request.method === "GET") event.respondWith(answer(event.request));
});
