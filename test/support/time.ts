// How long a test may take. Limits are written for a quiet machine with two cores and scale by one factor, `patience`, which a
// busy machine sets: SLUICE_PATIENCE, or how many processes waited for each core when the tests began.

import { availableParallelism, loadavg } from "node:os";

export const patience = Number(process.env["SLUICE_PATIENCE"] ?? Math.max(1, loadavg()[0]! / availableParallelism()));

/** Milliseconds on a quiet machine, as milliseconds here. */
export const patiently = (milliseconds: number): number => Math.round(milliseconds * patience);
