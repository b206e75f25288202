// In which order a stream reads its data: one that anybody can start in the middle of, that is a fair mix from the first
// task on, and that depends on the sources alone, so neither on the seed nor on how many workers there are.
//
// JSONL files are cut into blocks of equal size, and a source's blocks come in a shuffled order that never changes: what is
// read first is a sample of the whole file, sorted or not. Sources that have to be read from their beginning (other formats,
// and those with split, limit, filter or map) come as they are. Of several sources, the one comes next of which the smallest
// share has been read.

import { statSync } from "node:fs";
import { Random } from "../words/random.ts";
import { grouped, lengthOf, type Task } from "./batch.ts";
import type { FileRange } from "./read/files.ts";
import { readItems, type FoundSource } from "./read/source.ts";

export interface StreamTask {
  task: Task;
  /** The number of its source. */
  source: number;
  /** Of its source's files; a guess where a file is not JSONL. */
  bytes: number;
}

/** All tasks of a stream but the first `skipped`. */
export async function* streamTasks(
  sources: FoundSource[],
  blockBytes: number,
  skipped = 0,
): AsyncGenerator<StreamTask> {
  const lanes = sources.map((source, index) => {
    const bytes = source.files.reduce((sum, file) => sum + statSync(file).size, 0);
    const tasks = source.hasBlocks ? shuffledBlocks(source, blockBytes) : itemTasks(source, blockBytes);
    return { index, tasks: tasks[Symbol.asyncIterator](), bytes: Math.max(1, bytes), read: 0 };
  });
  while (lanes.length > 0) {
    const lane = lanes.reduce((least, next) => (next.read / next.bytes < least.read / least.bytes ? next : least));
    const { value, done } = await lane.tasks.next();
    if (done) {
      lanes.splice(lanes.indexOf(lane), 1);
      continue;
    }
    lane.read += value.bytes;
    if (skipped > 0) skipped--;
    else yield { ...value, source: lane.index };
  }
}

async function* shuffledBlocks({ files }: FoundSource, blockBytes: number) {
  const inFile = files.map((path) => {
    const { size, mtimeMs } = statSync(path);
    return { path, size, mtimeMs, blocks: Math.ceil(size / blockBytes) };
  });
  const blocks: { file: number; block: number }[] = [];
  inFile.forEach(({ blocks: count }, file) => {
    for (let block = 0; block < count; block++) blocks.push({ file, block });
  });
  new Random(1).shuffle(blocks); // the same for every seed: a run's own shuffle is inside the parts
  for (const { file, block } of blocks) {
    const { path, size, mtimeMs } = inFile[file]!;
    const range: FileRange = {
      path,
      from: block * blockBytes,
      to: Math.min(size, (block + 1) * blockBytes),
      size,
      mtimeMs,
    };
    yield { task: { range } satisfies Task, bytes: range.to - range.from };
  }
}

async function* itemTasks(source: FoundSource, blockBytes: number) {
  for await (const { items } of grouped(readItems(source, source.files), blockBytes))
    yield { task: { items } satisfies Task, bytes: items.reduce((sum, item) => sum + lengthOf(item), 0) };
}
