// The gated MLP: one product for gate and up, silu(gate) · up (SwiGLU) or gelu(gate) · up (GeGLU), one product down. Where it
// ends its branch, the last product adds the stream.

import type { DecoderConfig } from "../architecture.ts";
import { backwardProduct, forwardProduct, type Part, type Product } from "./part.ts";

const silu = ["swigluForward", "swigluBackward"] as const;
const gelu = ["gegluForward", "gegluBackward"] as const;

export interface MlpOptions {
  activation?: "silu" | "gelu";
  /** A norm follows, and the addition after it. */
  normFollows?: boolean;
}

export function mlp(
  { hidden, intermediate }: Pick<DecoderConfig, "hidden" | "intermediate">,
  { activation = "silu", normFollows = false }: MlpOptions = {},
): Part {
  const [forward, backward] = activation === "silu" ? silu : gelu;
  const gateUp: Product = { group: "gate_up", inputs: hidden, outputs: 2 * intermediate };
  const down: Product = { group: "down", inputs: intermediate, outputs: hidden };
  return {
    tensors: [
      { group: "gate_up", name: "mlp.gate_proj.weight", shape: [intermediate, hidden] },
      { group: "gate_up", name: "mlp.up_proj.weight", shape: [intermediate, hidden] },
      { group: "down", name: "mlp.down_proj.weight", shape: [hidden, intermediate] },
    ],
    products: [gateUp, down],
    values: [
      { name: "gateUp", width: 2 * intermediate, cost: "product" }, // (T, 2F)
      { name: "gated", width: intermediate, cost: "cheap" }, // (T, F)
      { name: "out", width: hidden, cost: "product" }, // (T, C)
    ],
    scratch: [],
    readsInput: true,
    ...(normFollows ? {} : { stream: "out" }),
    forward: [
      {
        makes: ["gateUp"],
        reads: ["x"],
        record: (at) => forwardProduct(at, gateUp, { y: at.value("gateUp"), x: at.x }),
      },
      {
        makes: ["gated"],
        reads: ["gateUp"],
        record({ run, tokens, dtype, value }) {
          run(forward, { y: value("gated"), gateUp: value("gateUp"), tokens, width: intermediate, dtype });
        },
      },
      {
        makes: ["out"],
        reads: normFollows ? ["gated"] : ["gated", "stream"],
        record: (at) =>
          forwardProduct(at, down, {
            y: at.value("out"),
            x: at.value("gated"),
            ...(normFollows ? {} : { residual: at.stream }),
          }),
      },
    ],
    backward(at) {
      const { tokens, dtype } = at;
      const [gated, dGateUp] = [at.value("gated"), at.value("gateUp")];
      backwardProduct(at, down, { dx: gated, dy: at.dy, x: gated });
      at.run(backward, { gateUp: dGateUp, dy: gated, tokens, width: intermediate, dtype });
      backwardProduct(at, gateUp, { dx: at.dx, dy: dGateUp, x: at.x });
    },
  };
}
