// node build.mjs package: the npm package into dist/.
// node build.mjs page [FOLDER]: the scripts of the page into FOLDER, by default that of the Python package.
// One script each, without pieces in common: a worker and a service worker are loaded by their own address.
import { fileURLToPath } from "node:url";
import { build } from "vite";

const at = (path) => fileURLToPath(new URL(path, import.meta.url));
const [what, page = at("../distill/browser/page")] = process.argv.slice(2);

// Bundlers of others are to see where the package starts its worker; the build of this one is not.
const showsWorker = { name: "shows-worker", renderChunk: (code) => code.replace("/* @vite-ignore */", "") };

async function script(entry, outDir, fileName, plugins = []) {
  await build({
    configFile: false,
    root: at("."),
    publicDir: false,
    plugins,
    logLevel: "warn",
    build: {
      outDir,
      emptyOutDir: false,
      target: "es2022",
      minify: true,
      lib: { entry: at(entry), formats: ["es"], fileName: () => fileName },
    },
  });
}

if (what === "package") {
  await script("src/index.ts", at("dist"), "index.js", [showsWorker]);
  await script("src/worker.ts", at("dist"), "worker.js");
} else if (what === "page") {
  await script("src/page/main.ts", page, "page.js");
  await script("src/worker.ts", page, "worker.js");
  await script("src/sw.ts", page, "sw.js");
} else {
  console.error("usage: node build.mjs package | page [FOLDER]");
  process.exit(2);
}
