// RMSNorm with a weight: at the head of a branch, alone or with the addition that ends the branch before; or at the end of a
// branch, before the addition.

import type { DecoderConfig } from "../architecture.ts";
import type { Range } from "../../plan/plan.ts";
import type { At, BackwardAt, Part, Tensor } from "./part.ts";

type Sizes = Pick<DecoderConfig, "hidden" | "normEpsilon" | "normOffset">;

const rows = ({ tokens, dtype }: At, { hidden }: Sizes) => ({ rows: tokens, width: hidden, dtype });

/** out = norm(x) at the head of a branch: x is the stream. */
export function norm(config: Sizes, group: string, name: string): Part {
  const tensor: Tensor = { group, name, shape: [config.hidden] };
  return {
    tensors: [tensor],
    products: [],
    values: [
      { name: "out", width: config.hidden, cost: "cheap" }, // (T, C)
      { name: "inverse", width: 1, dtype: "float32", cost: "cheap" }, // (T)
    ],
    scratch: [],
    readsInput: true,
    forward: [{ makes: ["out", "inverse"], reads: ["x"], record: (at) => forwardNorm(at, at.x, config, group) }],
    backward: (at) => backwardNorm(at, at.x, config, group),
  };
}

/** sum = stream + x, out = norm(sum): the end of one branch and the head of the next, in one op. */
export function addNorm(config: Sizes, group: string, name: string): Part {
  const { hidden, normEpsilon: epsilon } = config;
  return {
    ...norm(config, group, name),
    values: [
      { name: "sum", width: hidden, cost: "product" }, // (T, C); x is the result of a product that nobody saves
      { name: "out", width: hidden, cost: "cheap" }, // (T, C)
      { name: "inverse", width: 1, dtype: "float32", cost: "cheap" }, // (T)
    ],
    readsInput: false,
    stream: "sum",
    forward: [
      {
        makes: ["sum", "out", "inverse"],
        reads: ["x", "stream"],
        record: (at) =>
          at.run("addRmsnormForward", {
            sum: at.value("sum"),
            y: at.value("out"),
            inverse: at.value("inverse"),
            x: at.stream,
            delta: at.x,
            weight: at.weight(group),
            epsilon,
            ...rows(at, config),
          }),
        given: {
          makes: ["out", "inverse"],
          reads: ["sum"],
          record: (at) => forwardNorm(at, at.value("sum"), config, group),
        },
      },
    ],
    backward: (at) => backwardNorm(at, at.value("sum"), config, group),
  };
}

/** out = stream + norm(x): the end of a branch. */
export function normAdd(config: Sizes, group: string, name: string): Part {
  const { hidden } = config;
  return {
    ...norm(config, group, name),
    scratch: [{ name: "out", width: hidden }], // when only `inverse` is wanted again
    stream: "out",
    forward: [
      {
        makes: ["out", "inverse"],
        reads: ["x", "stream"],
        record: (at) => forwardNorm(at, at.x, config, group, at.stream),
      },
    ],
    backward: (at) => backwardNorm(at, at.x, config, group, { dx: at.dx, dy: at.dStream, accumulateDx: 0 }),
  };
}

function forwardNorm(at: At, x: Range, config: Sizes, group: string, residual?: Range): void {
  at.run("rmsnormForward", {
    y: at.value("out"),
    inverse: at.value("inverse"),
    x,
    weight: at.weight(group),
    residual,
    epsilon: config.normEpsilon,
    offset: config.normOffset,
    ...rows(at, config),
  });
}

/** At the head of a branch it adds to the stream's gradient. */
function backwardNorm(
  at: BackwardAt,
  x: Range,
  config: Sizes,
  group: string,
  ranges = { dx: at.dStream, dy: at.dy, accumulateDx: 1 },
): void {
  at.run("rmsnormBackward", {
    dWeight: at.gradient(group),
    x,
    inverse: at.value("inverse"),
    weight: at.weight(group),
    accumulate: at.accumulate,
    offset: config.normOffset,
    ...ranges,
    ...rows(at, config),
  });
}
