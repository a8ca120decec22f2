// src/index.ts
var e = class e {
	worker;
	contract;
	waiting = /* @__PURE__ */ new Map();
	requests = 0;
	ended;
	constructor(e) {
		this.worker = e, e.onmessage = (e) => this.receive(e.data), e.onerror = (e) => this.end(/* @__PURE__ */ Error(`the scoring thread ended: ${e.message || "not loaded"}`));
	}
	static async load(t, n = {}) {
		let r = new e(new Worker(new URL(
			/* @vite-ignore */
			"./worker.js",
			import.meta.url
		), { type: "module" })), i = new URL(t, document.baseURI).href, a = (e, t) => e === void 0 ? new URL(t, i).href : new URL(e, document.baseURI).href, o = {
			kind: "load",
			model: i,
			runtime: a(n.runtime, "ort.wasm.bundle.min.mjs"),
			wasm: a(n.wasm, "ort-wasm-simd-threaded.wasm")
		};
		try {
			r.contract = await r.ask(o, n.onProgress);
		} catch (e) {
			throw r.close(), e;
		}
		return r;
	}
	score(e, t = {}) {
		return this.ask({
			kind: "score",
			picture: e,
			preview: t.preview ?? !1
		});
	}
	close() {
		this.worker.terminate(), this.end(/* @__PURE__ */ Error("the scorer was closed"));
	}
	ask(e, t) {
		if (this.ended) return Promise.reject(this.ended);
		let n = this.requests++;
		return new Promise((r, i) => {
			this.waiting.set(n, {
				resolve: r,
				reject: i,
				onProgress: t
			}), this.worker.postMessage({
				...e,
				id: n
			});
		});
	}
	receive(e) {
		let t = this.waiting.get(e.id);
		if (t !== void 0) {
			if (e.kind === "progress") return t.onProgress?.(e.done);
			this.waiting.delete(e.id), e.kind === "done" ? t.resolve(e.value) : t.reject(Error(e.reason));
		}
	}
	end(e) {
		this.ended = e;
		for (let t of this.waiting.values()) t.reject(e);
		this.waiting.clear();
	}
}, t = /\.(jpe?g|jfif|png|webp|gif|bmp|avif|hei[cf]|tiff?)$/i;
function n(e) {
	return !e.name.startsWith(".") && (e.type.startsWith("image/") || t.test(e.name));
}
function r(e) {
	return [...e].map((e) => ({
		name: e.webkitRelativePath || e.name,
		file: e
	}));
}
async function i(e) {
	let t = [...e.items].map((e) => e.webkitGetAsEntry()).filter((e) => e !== null);
	return t.length === 0 ? r(e.files) : (await Promise.all(t.map(a))).flat();
}
async function a(e) {
	let t = e.fullPath.replace(/^\//, "");
	if (e.isFile) return [{
		name: t,
		file: await new Promise((t, n) => e.file(t, n))
	}];
	let n = e.createReader(), r = [];
	for (;;) {
		let e = await new Promise((e, t) => n.readEntries(e, t));
		if (e.length === 0) break;
		r.push(...e);
	}
	return (await Promise.all(r.map(a))).flat();
}
// src/page/heat.ts
var o = [
	214,
	96,
	0
], s = [
	0,
	104,
	190
], ee = .06, c = .7;
function l(e, { map: t, score: n }) {
	e.width = t.columns, e.height = t.rows, e.style.width = `${100 * t.columns / t.extent[1]}%`, e.style.height = `${100 * t.rows / t.extent[0]}%`;
	let r = new ImageData(t.columns, t.rows), i = t.weights.reduce((e, t) => e + t, 0) / t.weights.length, a = t.data.map((e, r) => (e - n) * Math.min(1, t.weights[r] / i)), l = a.reduce((e, t) => Math.max(e, Math.abs(t)), ee);
	a.forEach((e, t) => {
		let n = Math.round(255 * c * Math.abs(e) / l);
		r.data.set([...e < 0 ? o : s, n], 4 * t);
	}), e.getContext("2d").putImageData(r, 0, 0);
}
// src/page/rows.ts
var u = 10, d = 12e4, f = 5, te = /^[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]/, ne = [
	"path",
	"score",
	"status",
	"reason",
	"width",
	"height",
	"similar",
	"best_of_similar",
	"taken"
], p = new Intl.Collator(void 0, {
	numeric: !0,
	sensitivity: "base"
});
function m(e, t) {
	let n = t === "best" ? -1 : 1;
	return [...e].sort((e, r) => {
		let i = p.compare(e.name, r.name);
		if (t === "name") return i;
		let [a, o] = [e.result?.score, r.result?.score];
		return a === void 0 || o === void 0 ? Number(a === void 0) - Number(o === void 0) || i : n * (a - o) || i;
	});
}
function h(e) {
	let t = (e) => e.result?.taken ?? e.file.lastModified, n = e.filter((e) => e.result?.hash !== void 0);
	n.sort((e, n) => t(e) - t(n) || p.compare(e.name, n.name));
	let r = [], i = /* @__PURE__ */ new Map();
	n.forEach((e, a) => {
		let o = n.slice(Math.max(0, a - f), a).reverse().find((n) => t(e) - t(n) <= d && g(e.result.hash, n.result.hash) <= u), s = o && i.get(o);
		s ? s.push(e) : r.push([e]), i.set(e, s ?? r[r.length - 1]);
	});
	for (let t of e) Object.assign(t, {
		group: 0,
		isBest: !0
	});
	r.filter((e) => e.length > 1).forEach((e, t) => {
		let [n] = m(e, "best");
		for (let r of e) Object.assign(r, {
			group: t + 1,
			isBest: r === n
		});
	});
}
function g(e, t) {
	let n = BigInt(`0x${e}`) ^ BigInt(`0x${t}`), r = 0;
	for (; n > 0n; n &= n - 1n) r++;
	return r;
}
function _(e) {
	let t = e.map((e) => {
		let { result: t } = e, n = t?.taken == null ? "" : new Date(t.taken).toISOString().slice(0, 19);
		return [
			e.name,
			t ? t.score.toFixed(6) : "",
			t ? "ok" : "failed",
			t ? t.note : e.reason,
			t?.width ?? "",
			t?.height ?? "",
			e.group || "",
			e.isBest ? "yes" : "no",
			n
		].map(re).join(",");
	});
	return [
		ne.join(","),
		...t,
		""
	].join("\r\n");
}
function re(e) {
	let t = String(e), n = te.test(t) ? `'${t}` : t;
	return /[",\r\n]/.test(n) ? `"${n.replaceAll("\"", "\"\"")}"` : n;
}
// src/page/main.ts
var ie = .001, v = 200, y = 4, b = 700, x = 4e3;
function S(e) {
	return document.getElementById(e);
}
function C(e, t = {}, ...n) {
	let r = Object.assign(document.createElement(e), t);
	return r.append(...n), r;
}
var ae = S("status"), w = S("progress"), T = S("warning"), E = S("viewer"), D = [], O = "best", k = v, A = [], j = 0, M = !1, N = !1, P = 0, F = 0, I = b, L = 0, R = /* @__PURE__ */ new Map();
function z(e, t = !0) {
	!t && Date.now() - L < x || (L = Date.now(), ae.textContent = e);
}
var B = (e) => (e / 1e6).toFixed(1);
async function oe() {
	let t = await (await fetch("site.json")).json();
	S("loading").hidden = !1;
	let n = await e.load(t.model, {
		runtime: t.runtime,
		wasm: t.wasm,
		onProgress: (e) => {
			w.value = Math.min(1, e / t.bytes), S("count").textContent = `Loading the model: ${B(e)} of ${B(t.bytes)} MB, once`;
		}
	}), r = await (await fetch(t.check.picture)).blob(), { score: i } = await n.score(r);
	Math.abs(i - t.check.score) <= ie || (T.hidden = !1, T.textContent = `This browser gives a test picture ${i.toFixed(3)} instead of ${t.check.score.toFixed(3)}: it alters pixels that pages read, perhaps as a protection from tracking. Scores are not to be trusted here.`);
	let { name: a, scale: o } = n.contract;
	return S("model").textContent = `Model ${a}. Scale: ${o}.`, S("loading").hidden = !0, "serviceWorker" in navigator && await navigator.serviceWorker.register("sw.js", { type: "classic" }).catch(() => {}), n;
}
var V = oe().catch((e) => {
	throw T.hidden = !1, T.textContent = `The model could not be loaded: ${e.message}`, S("loading").hidden = !0, e;
});
V.catch(() => {});
function H(e) {
	let t = e.filter(({ file: e }) => n(e));
	if (P += e.length - t.length, D.push(...t.map(({ name: e, file: t }) => ({
		name: e,
		file: t,
		reason: "",
		group: 0,
		isBest: !0
	}))), t.length === 0) return z(e.length ? "No photographs among these files." : "No files in there.");
	se();
}
var U = (e) => e.result === void 0 && e.reason === "";
async function se() {
	if (N = !1, !M) {
		M = !0;
		try {
			let e = await V;
			S("loading").hidden = !1, S("stop").hidden = !1;
			for (let t = D.find(U); t && !N; t = D.find(U)) {
				await e.score(t.file, { preview: !0 }).then((e) => t.result = e, (e) => t.reason = e.message || "it could not be scored");
				let n = D.filter((e) => !U(e)).length;
				w.value = n / D.length;
				let r = `Scored ${n} of ${D.length}`;
				S("count").textContent = r, z(r, !1), Date.now() - F > I && G();
			}
			D = D.filter((e) => !U(e)), G(), z(`${N ? "Stopped. " : ""}${W()}`);
		} catch {
			D = D.filter((e) => !U(e));
		} finally {
			M = !1, S("loading").hidden = !0, S("stop").hidden = !0;
		}
	}
}
function W() {
	let e = D.filter((e) => e.result === void 0).length, t = [`${D.length - e} photographs scored`];
	return e && t.push(`${e} not scored`), P && t.push(`${P} other files left out`), `${t.join(", ")}.`;
}
function G() {
	F = Date.now();
	let e = document.activeElement?.closest("[data-name]");
	h(D);
	let t = D.filter((e) => !U(e)), n = S("only").checked;
	A = m(t, O).filter((e) => !n || e.isBest);
	let r = m(t, "best").filter((e) => e.result !== void 0);
	S("results").hidden = t.length === 0, S("summary").textContent = W();
	let i = Math.min(y, Math.ceil(r.length / 2));
	S("ends").hidden = r.length < 2, S("best").replaceChildren(...r.slice(0, i).map(K)), S("worst").replaceChildren(...r.slice(i).slice(-i).reverse().map(K)), S("rows").replaceChildren(...A.slice(0, k).map(ce)), S("more").hidden = A.length <= k, S("more").textContent = `Show more (${A.length - k} left)`, S("by-score").setAttribute("aria-sort", {
		best: "descending",
		worst: "ascending",
		name: "none"
	}[O]), S("by-name").setAttribute("aria-sort", O === "name" ? "ascending" : "none"), I = Math.max(b, 10 * (Date.now() - F));
	let a = e?.parentElement?.id;
	a && S(a).querySelector(`[data-name="${CSS.escape(e.dataset.name)}"] button`)?.focus();
}
function K(e) {
	return q(e, C("li", {}, Y(e), C("span", {
		className: "score",
		textContent: J(e)
	})));
}
function q(e, t) {
	return t.dataset.name = e.name, t;
}
var J = (e) => e.result?.score.toFixed(3) ?? "no score";
function Y(e) {
	if (e.result === void 0) return C("span", {
		className: "picture none",
		ariaHidden: "true"
	}, "?");
	R.has(e) || R.set(e, URL.createObjectURL(e.result.thumbnail));
	let t = C("canvas", { className: "overlay" });
	l(t, e.result);
	let { width: n, height: r } = e.result, i = C("span", { className: "frame" }, C("img", {
		src: R.get(e),
		alt: ""
	}), t);
	i.classList.add(3 * n > 4 * r ? "wide" : "tall"), i.style.aspectRatio = `${n} / ${r}`;
	let a = C("button", {
		type: "button",
		className: "picture"
	}, i);
	return a.ariaLabel = `Show ${e.name}, score ${J(e)}`, a.onclick = () => le(e), a;
}
function ce(e) {
	let { result: t } = e, n = C("th", { scope: "row" }, C("span", {
		className: "name",
		textContent: e.name
	})), r = t ? t.note : e.reason;
	r && n.append(C("span", {
		className: "note",
		textContent: r
	}));
	let i = C("td", { className: "score" });
	if (t) {
		let n = C("span", {
			className: "bar",
			ariaHidden: "true"
		});
		n.style.setProperty("--part", `${100 * t.score}%`), i.append(J(e), n);
	} else i.append("no score");
	let a = e.group ? `group ${e.group}${e.isBest ? ", best" : ""}` : "";
	return q(e, C("tr", { className: e.group && e.isBest ? "winner" : "" }, C("td", {}, Y(e)), n, i, C("td", {
		className: "similar",
		textContent: a
	}), C("td", {
		className: "size",
		textContent: t ? `${t.width} × ${t.height}` : ""
	})));
}
function le(e) {
	j = A.indexOf(e), j < 0 && (j = (A = [...A, e]).length - 1), X(), E.showModal();
}
function X() {
	let e = A[j], t = S("large");
	[...R.values()].includes(t.src) || URL.revokeObjectURL(t.src), t.src = URL.createObjectURL(e.file), t.onload = () => {
		let { result: n } = e;
		n && t.src !== R.get(e) && t.naturalWidth !== n.width && (t.src = R.get(e));
	}, t.alt = e.name;
	let n = S("large-heat");
	n.hidden = e.result === void 0, e.result && l(n, e.result), S("viewer-name").textContent = e.name, S("viewer-score").textContent = e.result ? `Score ${J(e)}` : e.reason;
}
function Z(e) {
	j = Math.min(A.length - 1, Math.max(0, j + e)), X();
}
function Q(e) {
	let t = S(`${e}-input`);
	S(e).onclick = () => t.click(), t.onchange = () => {
		H(r(t.files ?? [])), t.value = "";
	};
}
function $(e) {
	O = e, G();
}
Q("files"), Q("folder"), S("folder").hidden = !("webkitdirectory" in S("folder-input")), S("stop").onclick = () => N = !0, S("csv").onclick = function() {
	let e = URL.createObjectURL(new Blob([_(m(D, O))], { type: "text/csv" }));
	C("a", {
		href: e,
		download: "scores.csv"
	}).click(), setTimeout(() => URL.revokeObjectURL(e), 6e4);
}, S("clear").onclick = function() {
	N = !0;
	for (let e of R.values()) URL.revokeObjectURL(e);
	R.clear(), D = [], P = 0, k = v, G(), z("Cleared."), S("files").focus();
}, S("more").onclick = () => {
	k += v, G();
}, S("only").onchange = G, S("heat").onchange = (e) => {
	let t = e.target.checked;
	document.body.classList.toggle("with-heat", t), S("viewer-heat").checked = t;
}, S("viewer-heat").onchange = () => S("heat").click(), S("sort-score").onclick = () => $(O === "best" ? "worst" : "best"), S("sort-name").onclick = () => $("name"), S("previous").onclick = () => Z(-1), S("next").onclick = () => Z(1), S("close").onclick = () => E.close(), E.onkeydown = (e) => {
	e.key === "ArrowLeft" && Z(-1), e.key === "ArrowRight" && Z(1);
}, document.ondragover = (e) => {
	e.preventDefault(), document.body.classList.add("dragged");
}, document.ondragleave = (e) => {
	e.relatedTarget === null && document.body.classList.remove("dragged");
}, document.ondrop = async (e) => {
	e.preventDefault(), document.body.classList.remove("dragged"), e.dataTransfer && H(await i(e.dataTransfer));
}, document.onpaste = (e) => H(r(e.clipboardData?.files ?? []));
