/** Files from the page's own server, compressed or not, with progress. */

import { expand } from "./lzma.ts";

export type OnBytes = (bytes: number) => void;

/**
 * The content of an address; that of a .lzma file is expanded.
 *
 * So the page's files are small on any plain server, whether it compresses what it sends or not.
 */
export async function download(url: string, onBytes: OnBytes): Promise<Uint8Array<ArrayBuffer>> {
  const response = await fetch(url);
  if (!response.ok || response.body === null) throw new Error(`${url} answered ${response.status}`);
  const counter = new TransformStream<Uint8Array<ArrayBuffer>, Uint8Array<ArrayBuffer>>({
    transform(chunk, out) {
      onBytes(chunk.byteLength);
      out.enqueue(chunk);
    },
  });
  const content = new Uint8Array(await new Response(response.body.pipeThrough(counter)).arrayBuffer());
  return new URL(url).pathname.endsWith(".lzma") ? expand(content) : content;
}
