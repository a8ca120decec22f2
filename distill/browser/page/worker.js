// src/container.ts
var e = {
	declaresColour: !1,
	taken: null,
	orientation: 1,
	unturned: null,
	cut: !1,
	isCmyk: !1
};
function t(t) {
	let i = new DataView(t.buffer, t.byteOffset, t.byteLength);
	try {
		return n(t, 0, "ÿØÿ") ? r(t, i) : n(t, 0, "PNG\r\n\n") ? a(t, i) : n(t, 0, "RIFF") && n(t, 8, "WEBP") ? o(t, i) : n(t, 4, "ftyp") ? {
			...e,
			declaresColour: !0
		} : e;
	} catch (t) {
		if (t instanceof RangeError) return {
			...e,
			cut: !0
		};
		throw t;
	}
}
function n(e, t, n) {
	return [...n].every((n, r) => e[t + r] === n.charCodeAt(0));
}
function r(t, r) {
	let a = { ...e }, o = !1, c = 2;
	for (;;) {
		for (; r.getUint8(c) !== 255;) c++;
		for (; r.getUint8(c) === 255;) c++;
		let e = r.getUint8(c++);
		if (e === 217) return a;
		if (e === 1 || e >= 208 && e <= 216) continue;
		let l = r.getUint16(c);
		if (!o && e === 225 && n(t, c + 2, "Exif\0\0") && (o = !0, s(t.subarray(c + 8, c + l), a, [t])), e === 226 && n(t, c + 2, "ICC_PROFILE\0") && (a.declaresColour = !0), e >= 192 && e <= 194 && (a.isCmyk = r.getUint8(c + 7) === 4), c += l, e === 218) return {
			...a,
			cut: !i(t, c)
		};
	}
}
function i(e, t) {
	for (let n = e.indexOf(255, t); n >= 0; n = e.indexOf(255, n + 1)) if (e[n + 1] === 217) return !0;
	return !1;
}
function a(t, n) {
	let r = { ...e }, i = /* @__PURE__ */ new Set();
	for (let e = 8;;) {
		let a = n.getUint32(e), o = String.fromCharCode(...t.subarray(e + 4, e + 8));
		if (i.add(o), o === "eXIf") {
			let n = [t.subarray(0, e), t.subarray(e + 12 + a)];
			s(t.subarray(e + 8, e + 8 + a), r, n);
		}
		if (o === "IEND") break;
		e += 12 + a;
	}
	let a = i.has("sRGB");
	return r.declaresColour = i.has("iCCP") || i.has("cICP") || !a && (i.has("gAMA") || i.has("cHRM")), r;
}
function o(t, r) {
	let i = { ...e }, a = 8 + r.getUint32(4, !0);
	if (a > t.length) return {
		...i,
		cut: !0
	};
	for (let e = 12; e + 8 <= a;) {
		let a = r.getUint32(e + 4, !0);
		if (n(t, e, "ICCP") && (i.declaresColour = !0), n(t, e, "EXIF")) {
			let r = e + 8 + (n(t, e + 8, "Exif\0\0") ? 6 : 0);
			s(t.subarray(r, e + 8 + a), i, [t]);
		}
		e += 8 + a + a % 2;
	}
	return i;
}
function s(e, t, r) {
	let i = new DataView(e.buffer, e.byteOffset, e.byteLength), a = n(e, 0, "II"), o = (e, t) => {
		let n = i.getUint16(e, a);
		for (let r = e + 2; r < e + 2 + 12 * n; r += 12) if (i.getUint16(r, a) === t) return r + 8;
		return null;
	};
	try {
		let n = i.getUint32(4, a), s = o(n, 274), l = s === null ? 1 : i.getUint16(s, a);
		s !== null && l >= 2 && l <= 8 && (Object.assign(t, {
			orientation: l,
			unturned: r
		}), i.setUint16(s, 1, a));
		let u = o(n, 34665), d = u === null ? null : o(i.getUint32(u, a), 36867);
		d !== null && (t.taken = c(e, i.getUint32(d, a)));
	} catch (e) {
		if (!(e instanceof RangeError)) throw e;
	}
}
function c(e, t) {
	let n = String.fromCharCode(...e.subarray(t, t + 19)), [, r, i] = /^(\d{4}:\d\d:\d\d) (\d\d:\d\d:\d\d)$/.exec(n) ?? [], a = r ? Date.parse(`${r.replaceAll(":", "-")}T${i}Z`) : NaN;
	return Number.isNaN(a) ? null : a;
}
// src/decode.ts
var l = 1e8, u = 64, d = 2e6;
async function f(e) {
	if (!(e instanceof Blob)) return {
		...h(e instanceof ImageBitmap ? e : await createImageBitmap(e), 1),
		taken: null,
		note: ""
	};
	if (e.size === 0) throw Error("the file has zero bytes");
	let n = t(new Uint8Array(await e.arrayBuffer()));
	if (n.cut) throw Error("the file is cut: its end is missing");
	let r = await p(n.unturned ? new Blob(n.unturned) : e, n.declaresColour);
	try {
		let e = n.isCmyk ? "CMYK: its colours are converted by the browser, and the score may differ" : "";
		return {
			...h(r, n.orientation),
			taken: n.taken,
			note: e
		};
	} finally {
		r.close();
	}
}
async function p(e, t) {
	try {
		return await createImageBitmap(e, { colorSpaceConversion: t ? "default" : "none" });
	} catch {
		throw Error("no picture that this browser can decode: save it as JPEG, PNG or WebP");
	}
}
function m(e, t, n) {
	let r = t * n - 1;
	return {
		2: [
			t - 1,
			-1,
			t
		],
		3: [
			r,
			-1,
			-t
		],
		4: [
			r - t + 1,
			1,
			-t
		],
		5: [
			0,
			n,
			1
		],
		6: [
			n - 1,
			n,
			-1
		],
		7: [
			r,
			-n,
			-1
		],
		8: [
			r - n + 1,
			-n,
			1
		]
	}[e] ?? [
		0,
		1,
		t
	];
}
function h(e, t) {
	let { width: n, height: r } = e;
	if (n * r > l) throw Error(`${n}x${r} pixels are above the limit of ${l}`);
	if (Math.min(n, r) < u) throw Error(`${n}x${r} pixels: a side is below the limit of ${u}`);
	let i = Math.min(r, Math.max(1, Math.floor(d / n))), a = new OffscreenCanvas(n, i).getContext("2d", {
		willReadFrequently: !0,
		colorSpace: "srgb"
	});
	if (a === null) throw Error("this browser gives no canvas to a worker");
	a.fillStyle = "#fff";
	let o = new Uint8Array(n * r * 3), [s, c, f] = m(t, n, r);
	for (let t = 0; t < r; t += i) {
		let l = Math.min(i, r - t);
		a.fillRect(0, 0, n, i), a.drawImage(e, 0, -t);
		let { data: u } = a.getImageData(0, 0, n, l);
		for (let e = 0, r = 0; e < l; e++) {
			let i = (s + (t + e) * f) * 3;
			for (let e = 0; e < n; e++, r += 4, i += 3 * c) o[i] = u[r], o[i + 1] = u[r + 1], o[i + 2] = u[r + 2];
		}
	}
	return t > 4 ? {
		rgb: o,
		height: n,
		width: r
	} : {
		rgb: o,
		height: r,
		width: n
	};
}
// src/lzma.ts
var g = 11, _ = 5, ee = 2 ** 24, v = 768, y = 0xffffffff, b = 2, x = 4, S = 14, C = (e) => new Uint16Array(e).fill(1024), w = () => ({
	choice: C(2),
	low: C(128),
	middle: C(128),
	high: C(256)
});
function T(e) {
	if (e.length < 18 || e[0] >= 225) throw Error("it is no LZMA file");
	let t = new DataView(e.buffer, e.byteOffset), n = e[0] % 9, r = Math.floor(e[0] / 9) % 5, i = Math.floor(e[0] / 45), a = t.getUint32(5, !0);
	if (t.getUint32(9, !0) !== 0) throw Error("the LZMA file does not state its size");
	let o = new Uint8Array(a), s = 18, c = 2 ** 32 - 1, l = t.getUint32(14);
	function u() {
		if (!(c >= ee)) {
			if (s >= e.length) throw Error("the LZMA file is cut");
			c *= 256, l = l * 256 + e[s++];
		}
	}
	function d(e, t) {
		let n = e[t], r = (c >>> g) * n, i = l >= r;
		return i ? (c -= r, l -= r, e[t] = n - (n >> _)) : (c = r, e[t] = n + (2048 - n >> _)), u(), +!!i;
	}
	function f(e, t, n) {
		let r = 1;
		for (let i = 0; i < n; i++) r = 2 * r + d(e, t + r);
		return r - (1 << n);
	}
	function p(e, t, n) {
		let r = 0;
		for (let i = 0, a = 1; i < n; i++) {
			let n = d(e, t + a);
			a = 2 * a + n, r += n << i;
		}
		return r;
	}
	function m(e) {
		let t = 0;
		for (let n = 0; n < e; n++) {
			c = Math.floor(c / 2);
			let e = l >= c;
			e && (l -= c), t = 2 * t + +!!e, u();
		}
		return t;
	}
	let h = C(192), T = C(12), E = C(12), D = C(12), O = C(12), k = C(192), A = C(v << n + r), j = C(256), M = C(115), N = C(16), P = w(), F = w(), I = 0, L = 0, [R, z, B, V] = [
		0,
		0,
		0,
		0
	];
	function H() {
		let e = L > 0 ? o[L - 1] : 0, t = v * (((L & (1 << r) - 1) << n) + (e >> 8 - n)), i = 1;
		if (I >= 7) {
			let e = o[L - R - 1];
			for (; i < 256;) {
				let n = e >> 7 & 1;
				e <<= 1;
				let r = d(A, t + (1 + n << 8) + i);
				if (i = 2 * i + r, r !== n) break;
			}
		}
		for (; i < 256;) i = 2 * i + d(A, t + i);
		return i & 255;
	}
	function U({ choice: e, low: t, middle: n, high: r }, i) {
		return d(e, 0) ? d(e, 1) ? 16 + f(r, 0, 8) : 8 + f(n, i << 3, 3) : f(t, i << 3, 3);
	}
	function W(e) {
		let t = f(j, Math.min(e, 3) << 6, 6);
		if (t < 4) return t;
		let n = (t >> 1) - 1, r = (2 | t & 1) * 2 ** n;
		return t < S ? r + p(M, r - t, n) : r + m(n - x) * 16 + p(N, 0, x);
	}
	function G(e) {
		if (R >= L || L + e > a) throw Error("the LZMA file was altered");
		for (let t = 0; t < e; t++, L++) o[L] = o[L - R - 1];
	}
	for (;;) {
		let e = L & (1 << i) - 1;
		if (!d(h, (I << 4) + e)) {
			if (L >= a) throw Error("the LZMA file was altered");
			o[L] = H(), L++, I = I < 4 ? 0 : I < 10 ? I - 3 : I - 6;
			continue;
		}
		if (!d(T, I)) {
			[V, B, z] = [
				B,
				z,
				R
			];
			let t = U(P, e);
			if (I = I < 7 ? 7 : 10, R = W(t), R === y) break;
			G(t + b);
			continue;
		}
		if (d(E, I)) d(D, I) ? d(O, I) ? [R, z, B, V] = [
			V,
			R,
			z,
			B
		] : [R, z, B] = [
			B,
			R,
			z
		] : [R, z] = [z, R];
		else if (!d(k, (I << 4) + e)) {
			I = I < 7 ? 9 : 11, G(1);
			continue;
		}
		let t = U(F, e);
		I = I < 7 ? 8 : 11, G(t + b);
	}
	if (L !== a || l !== 0) throw Error("the LZMA file was altered");
	return o;
}
// src/download.ts
async function E(e, t) {
	let n = await fetch(e);
	if (!n.ok || n.body === null) throw Error(`${e} answered ${n.status}`);
	let r = new TransformStream({ transform(e, n) {
		t(e.byteLength), n.enqueue(e);
	} }), i = new Uint8Array(await new Response(n.body.pipeThrough(r)).arrayBuffer());
	return new URL(e).pathname.endsWith(".lzma") ? T(i) : i;
}
// src/preview.ts
var D = 9, O = 8;
function k({ data: e, height: t, width: n }) {
	let r = "";
	for (let i = 0; i < O; i++) {
		let a = Array.from({ length: D }, (r, a) => {
			let [o, s] = A(i, O, t), [c, l] = A(a, D, n), u = 0;
			for (let t = o; t < s; t++) for (let r = c; r < l; r++) {
				let i = (t * n + r) * 3;
				u += 299 * e[i] + 587 * e[i + 1] + 114 * e[i + 2];
			}
			return u / ((s - o) * (l - c));
		}), o = 0;
		for (let e = 0; e < 8; e++) o = 2 * o + Number(a[e] < a[e + 1]);
		r += o.toString(16).padStart(2, "0");
	}
	return r;
}
function A(e, t, n) {
	let r = Math.floor(e * n / t);
	return [r, Math.max(r + 1, Math.floor((e + 1) * n / t))];
}
async function j({ data: e, height: t, width: n }) {
	let r = new OffscreenCanvas(n, t), i = r.getContext("2d");
	if (i === null) throw Error("this browser gives no canvas to a worker");
	let a = new ImageData(n, t);
	for (let t = 0, n = 0; t < e.length; n += 4) a.data[n] = e[t++], a.data[n + 1] = e[t++], a.data[n + 2] = e[t++], a.data[n + 3] = 255;
	return i.putImageData(a, 0, 0), r.convertToBlob({
		type: "image/jpeg",
		quality: .8
	});
}
// ../ports/javascript/preprocess.mjs
var M = 22, N = 2, P = Math.fround(.54), F = Math.fround(.46);
function I(e, t) {
	let n = e * t, r = Math.floor(n), i = n - r, a = i > .5 || i === .5 && r % 2 == 1 ? r + 1 : r;
	return Math.max(1, a);
}
function L(e, t, n, r) {
	let i = Math.max(e, t), a = Math.min(e, t), o = Math.min(1, n / i), s = I(i, o), c = I(a, o);
	return c < r && (c = r, s = Math.min(n, Math.max(r, I(i, r / a)))), e >= t ? [s, c] : [c, s];
}
function R(e, t, n, r, i) {
	let a = Math.ceil(t / r), o = Math.ceil(n / i), s = new Uint8Array(a * o * 3);
	for (let c = 0; c < a; c++) {
		let a = Math.min((c + 1) * r, t);
		for (let t = 0; t < o; t++) {
			let l = Math.min((t + 1) * i, n), u = (a - c * r) * (l - t * i), d = Math.floor(Math.fround(4294967296 / Math.fround(256 * u)));
			for (let f = 0; f < 3; f++) {
				let p = u >> 1;
				for (let o = c * r; o < a; o++) for (let r = t * i; r < l; r++) p += e[(o * n + r) * 3 + f];
				s[(c * o + t) * 3 + f] = Math.floor(p * d / 16777216);
			}
		}
	}
	return s;
}
function z(e) {
	return e = Math.abs(e), e === 0 ? 1 : e >= 1 ? 0 : (e *= Math.PI, Math.sin(e) / e * (P + F * Math.cos(e)));
}
function B(e) {
	return e = Math.abs(e), e < 1 ? (1.5 * e - 2.5) * e * e + 1 : e < 2 ? (((e - 5) * e + 8) * e - 4) * -.5 : 0;
}
function V(e, t, n, r) {
	let i = r ? B : z, a = t / n, o = Math.max(1, a), s = (r ? 2 : 1) * o, c = Math.ceil(s) * 2 + 1, l = new Int32Array(n), u = new Int32Array(n), d = new Int32Array(n * c), f = new Float64Array(c);
	for (let t = 0; t < n; t++) {
		let n = (t + .5) * a, r = Math.max(0, Math.trunc(n - s + .5)), p = Math.min(e, Math.trunc(n + s + .5)), m = 0;
		for (let e = 0; e < p - r; e++) m += f[e] = i((e + r - n + .5) * (1 / o));
		for (let e = 0; e < p - r; e++) {
			let n = (m === 0 ? f[e] : f[e] / m) * (1 << M);
			d[t * c + e] = Math.trunc(n < 0 ? n - .5 : n + .5);
		}
		l[t] = r, u[t] = p - r;
	}
	return {
		first: l,
		count: u,
		k: d,
		room: c
	};
}
function H(e, t, { lines: n, size: r, extent: i, out: a, grows: o, step: s, sourceStart: c, resultStart: l }) {
	let { first: u, count: d, k: f, room: p } = V(r, i, a, o);
	for (let r = 0; r < n; r++) for (let n = 0; n < a; n++) for (let i = 0; i < 3; i++) {
		let a = 1 << 21;
		for (let t = 0; t < d[n]; t++) a += f[n * p + t] * e[(r * c + (u[n] + t) * s) * 3 + i];
		t[(r * l + n * s) * 3 + i] = Math.min(255, Math.max(0, a >> M));
	}
}
function U(e, t, n, r, i) {
	if (!(t > 0 && n > 0) || e.length !== t * n * 3) throw RangeError(`${e.length} bytes are no RGB image of ${n}x${t}: give width * height * 3`);
	let [a, o] = L(t, n, r, i), s = a > t || o > n, c = Math.trunc(n / o / N) || 1, l = Math.trunc(t / a / N) || 1, u = c > 1 || l > 1 ? R(e, t, n, l, c) : Uint8Array.from(e), d = Math.ceil(t / l), f = Math.ceil(n / c), p = Math.fround(t / l), m = Math.fround(n / c), h = f !== o || m !== o, g = d !== a || p !== a, _ = d > a && d - a > 2 * (f - o);
	for (let e of _ ? [!0, !1] : [!1, !0]) {
		if (e ? !g : !h) continue;
		let t = new Uint8Array((e ? a * f : d * o) * 3);
		H(u, t, {
			...e ? {
				lines: f,
				size: d,
				extent: p,
				out: a,
				step: f,
				sourceStart: 1,
				resultStart: 1
			} : {
				lines: d,
				size: f,
				extent: m,
				out: o,
				step: 1,
				sourceStart: f,
				resultStart: o
			},
			grows: s
		}), u = t, e ? d = a : f = o;
	}
	return {
		data: u,
		height: a,
		width: o
	};
}
// src/model.ts
var W = 14, G = "pocketiqa.contract", K = "pocketiqa.sha256", q = 6;
async function te(e) {
	await ne(e);
	let t;
	for (let [n, r] of Y(e)) {
		if (n !== W) continue;
		let e = new Map([...Y(r)].map(([e, t]) => [e, X(t)]));
		e.get(1) === G && (t = e.get(2));
	}
	if (t === void 0) throw Error("the model holds no contract: export it with `pocketiqa export`");
	let n = JSON.parse(t);
	if (!(n.format >= 1 && n.format <= q)) throw Error(`the model has contract format ${n.format}, this page reads 1 to ${q}: update it`);
	return n;
}
function J(e, t) {
	if (t === null) return e;
	let { knots: n } = t, r = n.findIndex(([t]) => e < t);
	if (r < 0) return Math.fround(n[n.length - 1][1]);
	if (r === 0) return Math.fround(n[0][1]);
	let [i, a] = n[r - 1], [o, s] = n[r];
	return Math.fround((s - a) / (o - i) * (e - i) + a);
}
async function ne(e) {
	let t = X(e.subarray(-64));
	if (!X(e.subarray(-86)).includes(K)) throw Error("the model does not end with a checksum of pocketiqa: it was cut, or is none");
	if (!globalThis.crypto?.subtle) return;
	let n = e.slice(0, -86);
	if ([...new Uint8Array(await crypto.subtle.digest("SHA-256", n))].map((e) => e.toString(16).padStart(2, "0")).join("") !== t) throw Error("the model was altered on its way here: load the page again");
}
function* Y(e) {
	let t = 0, n = () => {
		let n = 0;
		for (let r = 1;; r *= 128) {
			let i = e[t++];
			if (i === void 0) throw Error("the model ends within a field: it was cut");
			if (n += (i & 127) * r, i < 128) return n;
		}
	};
	for (; t < e.length;) {
		let r = n(), i = r & 7;
		if (i === 0) n();
		else if (i === 2) {
			let i = n();
			yield [Math.floor(r / 8), e.subarray(t, t += i)];
		} else if (i === 1 || i === 5) t += i === 1 ? 8 : 4;
		else throw Error("the model is no ONNX file");
	}
}
function X(e) {
	return new TextDecoder().decode(e);
}
// src/student.ts
var re = class e {
	runtime;
	session;
	contract;
	constructor(e, t, n) {
		this.runtime = e, this.session = t, this.contract = n;
	}
	static async open(t, n) {
		let r = await te(n), i = await t.InferenceSession.create(n, { executionProviders: ["wasm"] });
		return new e(t, i, r);
	}
	input(e, t, n) {
		let { max_side: r, min_side: i } = this.contract.preprocess;
		return U(e, t, n, r, i);
	}
	async score({ data: e, height: t, width: n }) {
		let r = new this.runtime.Tensor("uint8", e, [
			1,
			t,
			n,
			3
		]), i = await this.session.run({ rgb: r }, [
			"score",
			"quality_map",
			"weight_map"
		]), [a, o, s] = [
			i.score,
			i.quality_map,
			i.weight_map
		], c = a.data[0];
		if (!Number.isFinite(c)) throw Error("the model gave no finite score");
		let [, l, u] = o.dims, { calibration: d, student: f } = this.contract, p = {
			data: o.data.map((e) => J(e, d)),
			weights: s.data.slice(),
			rows: l,
			columns: u,
			extent: ie(l, u, {
				height: t,
				width: n
			}, f.grid ?? 0)
		};
		return {
			score: J(Math.min(1, Math.max(0, c)), d),
			map: p
		};
	}
};
function ie(e, t, { height: n, width: r }, i) {
	return i >= 1 && Math.ceil(n / i) === e && Math.ceil(r / i) === t ? [n / i, r / i] : [e, t];
}
// src/worker.ts
var Z, Q = Promise.resolve();
function $(e) {
	postMessage(e);
}
async function ae(e) {
	let t = 0, n = (n) => $({
		id: e.id,
		kind: "progress",
		done: t += n
	}), [r, i, a] = await Promise.all([
		import(
			/* @vite-ignore */
			e.runtime
),
		E(e.wasm, n),
		E(e.model, n)
	]);
	return r.env.wasm.wasmBinary = i.buffer, r.env.wasm.numThreads = 1, Z = await re.open(r, a), Z.contract;
}
async function oe({ picture: e, preview: t }) {
	if (Z === void 0) throw Error("no model is loaded");
	let { rgb: n, height: r, width: i, taken: a, note: o } = await f(e), s = Z.input(n, r, i), { score: c, map: l } = await Z.score(s), u = {
		score: c,
		map: l,
		width: i,
		height: r,
		note: o
	};
	return t && Object.assign(u, {
		thumbnail: await j(s),
		hash: k(s),
		taken: a
	}), u;
}
async function se(e) {
	let { id: t } = e;
	try {
		$({
			id: t,
			kind: "done",
			value: e.kind === "load" ? await ae(e) : await oe(e)
		});
	} catch (e) {
		$({
			id: t,
			kind: "failed",
			reason: e instanceof Error ? e.message : String(e)
		});
	}
}
addEventListener("message", (e) => {
	Q = Q.then(() => se(e.data));
});
