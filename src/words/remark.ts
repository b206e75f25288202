// What a person should know although nothing is wrong: one line to stderr, each only once in a process.

const said = new Set<string>();

/** Says a line, unless one of its kind was said already. Stdout may belong to a machine. */
export function remark(line: string, kind = line): void {
  if (said.has(kind)) return;
  said.add(kind);
  process.stderr.write(`${process.stderr.isTTY ? "\r\x1b[2K" : ""}${line}\n`);
}
