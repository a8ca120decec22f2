// src/sw.ts
var e = self, t = "pocketiqa-", n = `${t}${e.registration.scope} ${e.site.version}`;
async function r() {
	let t = await caches.open(n), { files: r, fixed: i } = e.site;
	await t.addAll(i.map((e) => new Request(e, { cache: "force-cache" }))), await t.addAll(r.map((e) => new Request(e, { cache: "no-cache" }))), await e.skipWaiting();
}
async function i() {
	let r = `${t}${e.registration.scope} `, i = (await caches.keys()).filter((e) => e.startsWith(r) && e !== n);
	await Promise.all(i.map((e) => caches.delete(e))), await e.clients.claim();
}
async function a(e) {
	return await (await caches.open(n)).match(e, { ignoreSearch: !0 }) ?? fetch(e);
}
e.addEventListener("install", (e) => e.waitUntil(r())), e.addEventListener("activate", (e) => e.waitUntil(i())), e.addEventListener("fetch", (e) => {
	e.request.method === "GET" && e.respondWith(a(e.request));
});
