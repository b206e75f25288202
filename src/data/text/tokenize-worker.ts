// One thread of the pool in tokenize.ts: it reads the tokenizer once and answers tasks until it is told to stop.

import { SluiceError } from "../../words/errors.ts";
import { encodeTask, type Task } from "../batch.ts";
import { Encoder, type EncodeOptions } from "./encode.ts";
import { loadTokenizer } from "./tokenizer.ts";

declare const self: Worker;

let encoder: Promise<Encoder> | undefined;

type Message = "stop" | { directory: string; rows: number | undefined; options: EncodeOptions } | Task;

self.addEventListener("message", async ({ data }: MessageEvent<Message>) => {
  if (data === "stop") return process.exit();
  if ("directory" in data) {
    encoder = loadTokenizer(data.directory).then((tokenizer) => {
      if (data.rows !== undefined) tokenizer.limitTo(data.rows);
      return new Encoder(tokenizer, data.options);
    });
    encoder.catch(() => {}); // the first task reports it
    return;
  }
  try {
    const batch = encodeTask(await encoder!, data);
    self.postMessage({ batch }, [batch.tokens.buffer, batch.targets.buffer, batch.lengths.buffer] as ArrayBuffer[]);
  } catch (error) {
    const { name, message, stack } = error as Error;
    self.postMessage({ error: { name, message: error instanceof SluiceError ? message : (stack ?? message) } }, []);
  }
});
