// A worker that does nothing but encode, for measure-data.ts to compare with: Hugging Face's tokenizer library for
// JavaScript, or Sluice's encoder (src/data/text/encoder.ts), which remembers words.

import { join } from "node:path";
import { Tokenizer as Library } from "@huggingface/tokenizers";
import { loadTokenizer, type Tokenizer } from "../../src/data/text/tokenizer.ts";

declare const self: Worker;

/** Who encodes. */
export type Encoding = "library" | "own";

let library: Library;
let own: Tokenizer;

self.addEventListener(
  "message",
  async ({ data }: MessageEvent<"stop" | { directory: string } | { texts: string[]; by: Encoding }>) => {
    if (data === "stop") return process.exit();
    let tokens = 0;
    if ("directory" in data) {
      const read = (name: string) => Bun.file(join(data.directory, name)).json();
      library = new Library(await read("tokenizer.json"), await read("tokenizer_config.json"));
      own = await loadTokenizer(data.directory);
    } else if (data.by === "library")
      for (const text of data.texts) tokens += library.encode(text, { add_special_tokens: false }).ids.length;
    else for (const text of data.texts) tokens += own.encode(text, { special: false }).length;
    self.postMessage(tokens, []);
  },
);
