// A fixed pool of Bun workers that tokenize. Tasks go out in order, at most three to a worker at a time, and their batches
// come back in the same order, so the data is the same whatever the number of workers, and memory stays bounded.
//
// Workers are asked to stop instead of being terminated in the middle of something, which Bun has not always survived.

import { DataError, ModelError } from "../../words/errors.ts";
import { remark } from "../../words/remark.ts";
import { encodeTask, packed, type Batch, type Task } from "../batch.ts";
import { Encoder, type EncodeOptions } from "./encode.ts";
import type { Tokenizer } from "./tokenizer.ts";

/** One is worked on, one waits, and one makes up for the main thread being busy. */
const TASKS_PER_WORKER = 3;

type Reply = { batch: Batch } | { error: { name: string; message: string } };

interface Pending {
  resolve: (batch: Batch) => void;
  reject: (error: Error) => void;
}

export class TokenizePool implements Disposable {
  readonly #threads: { worker: Worker; pending: Pending[] }[];

  /** Starts the workers; each reads the tokenizer from its directory. */
  constructor(workers: number, { directory, rows }: Tokenizer, options: EncodeOptions) {
    this.#threads = Array.from({ length: workers }, () => {
      const worker = new Worker(new URL("./tokenize-worker.ts", import.meta.url).href);
      const pending: Pending[] = [];
      worker.addEventListener("message", ({ data }: MessageEvent<Reply>) => {
        const { resolve, reject } = pending.shift()!;
        if ("batch" in data) resolve(data.batch);
        else reject(errorOf(data.error));
      });
      worker.addEventListener("error", ({ message }) => {
        for (const { reject } of pending.splice(0)) reject(new Error(`a tokenizing worker failed: ${message}`));
      });
      worker.postMessage({ directory, rows, options }, []);
      return { worker, pending };
    });
  }

  /** The batches of all tasks, in the order of the tasks. */
  async *run(tasks: AsyncIterable<Task>): AsyncGenerator<Batch> {
    const batches: Promise<Batch>[] = [];
    for await (const task of tasks) {
      const batch = this.#submit(task);
      batch.catch(() => {}); // it is awaited below, later
      batches.push(batch);
      if (batches.length >= this.#threads.length * TASKS_PER_WORKER) yield told(await batches.shift()!);
    }
    for (const batch of batches) yield told(await batch);
  }

  #submit(task: Task): Promise<Batch> {
    const thread = this.#threads.reduce((least, next) => (next.pending.length < least.pending.length ? next : least));
    return new Promise((resolve, reject) => {
      thread.pending.push({ resolve, reject });
      thread.worker.postMessage(packed(task), "lines" in task ? [task.lines.buffer as ArrayBuffer] : []);
    });
  }

  [Symbol.dispose](): void {
    for (const { worker } of this.#threads) {
      worker.postMessage("stop", []);
      worker.unref();
    }
  }
}

/** A worker's error, as what it was there: `SluiceError`s are for the user, others are ours. */
function errorOf({ name, message }: { name: string; message: string }): Error {
  if (name === "ModelError") return new ModelError(message);
  return name === "DataError" ? new DataError(message) : new Error(message);
}

/** A batch whose remarks have been made, each kind of them once. */
function told(batch: Batch): Batch {
  for (const [kind, line] of batch.remarks) remark(line, kind);
  return batch;
}

/** The same without workers, for data that is tokenized before they would have started. */
export async function* tokenizeHere(
  tasks: AsyncIterable<Task>,
  tokenizer: Tokenizer,
  options: EncodeOptions,
): AsyncGenerator<Batch> {
  const encoder = new Encoder(tokenizer, options);
  for await (const task of tasks) yield told(encodeTask(encoder, task));
}
