// What signals mean to a run: Ctrl-C, `kill`, Slurm, docker stop and a closed terminal all finish the step in hand and save;
// two within two seconds stop at once; SIGUSR1 saves and goes on.

const stopping = ["SIGINT", "SIGTERM", "SIGHUP"] as const;
const secondsForBoth = 2;

export class Signals implements Disposable {
  #last = -Infinity;
  readonly #stop: () => void;
  readonly #save: () => void;

  constructor({ stop, cancel, save }: { stop(again: boolean): void; cancel(): void; save(): void }) {
    let asked = false;
    this.#stop = () => {
      const now = performance.now();
      const both = now - this.#last < secondsForBoth * 1000;
      this.#last = now;
      if (both) return cancel();
      stop(asked);
      asked = true;
    };
    this.#save = save;
    for (const signal of stopping) process.on(signal, this.#stop);
    process.on("SIGUSR1", this.#save);
  }

  [Symbol.dispose](): void {
    for (const signal of stopping) process.off(signal, this.#stop);
    process.off("SIGUSR1", this.#save);
  }
}
