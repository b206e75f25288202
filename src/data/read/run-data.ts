// What a run learns from and what it is evaluated on, found together: a share may be kept from the one for the other, and what is
// in both is said, for such an evaluation tells what was remembered.

import { statSync } from "node:fs";
import { realpath } from "node:fs/promises";
import { remark } from "../../words/remark.ts";
import {
  findSources,
  listSources,
  type DataInput,
  type DataSource,
  type FoundSource,
  type FoundSources,
} from "./source.ts";
import { keepShare, parseSplit, shareOf } from "./splits.ts";

/** The sources of a run; `evaluationData` may be a share such as "5%" of `data`. */
export async function findRunData({
  data,
  evaluationData,
}: {
  data: DataInput;
  evaluationData?: DataInput | undefined;
}): Promise<{ training: FoundSources; heldOut: FoundSources | undefined }> {
  const share = shareOf(evaluationData);
  if (share !== undefined) {
    const part = (which: "rest" | "kept"): DataSource[] =>
      listSources(data).map((source) => ({ ...source, split: keepShare(source.split, share)[which] }));
    return { training: await findSources(part("rest")), heldOut: await findSources(part("kept")) };
  }
  const training = await findSources(data);
  if (evaluationData === undefined) return { training, heldOut: undefined };
  const heldOut = await findSources(evaluationData, "evaluation");
  for (const file of await sharedFiles(training.sources, heldOut.sources))
    remark(
      `evaluationData reads ${file}, which is trained on as well: such an evaluation tells what was remembered; ` +
        'name other data, or keep a share apart with evaluationData: "5%"',
    );
  return { training, heldOut };
}

/** Files of `heldOut` that `training` has as well, under their own name or as a copy, unless each takes another part. */
async function sharedFiles(training: FoundSource[], heldOut: FoundSource[]): Promise<string[]> {
  const parts = (sources: FoundSource[]) =>
    Promise.all(
      sources.flatMap(({ files, split }) =>
        files.map(async (file) => ({ file, path: await realpath(file), ...parseSplit(split) })),
      ),
    );
  const learned = await parts(training);
  const shared = new Set<string>();
  for (const held of await parts(heldOut))
    for (const { path, from, to } of learned)
      if (from < held.to && held.from < to && (path === held.path || (await isCopy(path, held.path))))
        shared.add(held.file);
  return [...shared];
}

/** Whether two files hold the same; files of gigabytes are not read for that. */
async function isCopy(one: string, other: string): Promise<boolean> {
  const { size } = statSync(one);
  if (size !== statSync(other).size || size > 2 ** 28) return false;
  const [a, b] = await Promise.all([Bun.file(one).bytes(), Bun.file(other).bytes()]);
  return Buffer.compare(a, b) === 0;
}
