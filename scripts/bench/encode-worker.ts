// A worker that does nothing but encode: what the tokenizer takes by itself, for measure-data.ts to compare with.

import { loadTokenizer, type Tokenizer } from "../../src/data/tokenizer.ts";

declare const self: Worker;

let tokenizer: Tokenizer;

self.addEventListener(
  "message",
  async ({ data }: MessageEvent<"stop" | { directory: string } | { texts: string[] }>) => {
    if (data === "stop") return process.exit();
    let tokens = 0;
    if ("directory" in data) tokenizer = await loadTokenizer(data.directory);
    else for (const text of data.texts) tokens += tokenizer.encode(text, { special: false }).length;
    self.postMessage(tokens, []);
  },
);
