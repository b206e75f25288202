// The rotary table: cosines and sines of every position, as Hugging Face's modelling code computes them.
//
// Hugging Face works in float32 here whatever the model's dtype is, and an angle at position 100,000 amplifies each
// rounding of a frequency by 100,000. So every step below rounds to float32 where PyTorch does (`f32`), in PyTorch's
// order; `scalar / tensor` in PyTorch is `reciprocal(tensor) * scalar`, which rounds twice. Kernels only look up.

/** How positions turn queries and keys, as config.json says it. */
export interface RopeConfig {
  type: "default" | "linear" | "llama3";
  theta: number;
  /** Of linear and llama3. */
  factor?: number;
  /** The rest is for llama3 only. */
  lowFrequencyFactor?: number;
  highFrequencyFactor?: number;
  originalMaxPositions?: number;
}

/** What a table is made of. */
export interface Rotary {
  rope: RopeConfig;
  headDim: number;
}

const f32 = Math.fround;

/** (P, D) float32: for each position D/2 cosines, then D/2 sines. */
export function ropeTable({ rope, headDim }: Rotary, positions: number): Float32Array<ArrayBuffer> {
  const frequencies = inverseFrequencies(rope, headDim);
  const half = headDim / 2;
  const table = new Float32Array(positions * headDim); // (P, D)
  for (let position = 0; position < positions; position++) {
    const row = position * headDim;
    for (let i = 0; i < half; i++) {
      const angle = f32(position * (frequencies[i] ?? 0));
      table[row + i] = Math.cos(angle);
      table[row + half + i] = Math.sin(angle);
    }
  }
  return table;
}

/** (D/2) float32: how far each pair of a head turns per position. */
export function inverseFrequencies(rope: RopeConfig, headDim: number): Float32Array {
  const frequencies = Float32Array.from({ length: headDim / 2 }, (_, i) => {
    const exponent = f32((2 * i) / headDim);
    return f32(1 / f32(f32(rope.theta) ** exponent));
  });
  if (rope.type === "linear") return frequencies.map((frequency) => f32(frequency / f32(rope.factor ?? 1)));
  return rope.type === "llama3" ? frequencies.map((frequency) => llama3(frequency, rope)) : frequencies;
}

/** Llama 3.1: high frequencies as they are, low ones divided by the factor, a smooth passage between. */
function llama3(frequency: number, rope: RopeConfig): number {
  const { factor = 1, lowFrequencyFactor = 1, highFrequencyFactor = 4, originalMaxPositions = 1 } = rope;
  const wavelength = f32(f32(1 / frequency) * f32(2 * Math.PI));
  if (wavelength < f32(originalMaxPositions / highFrequencyFactor)) return frequency;
  if (wavelength > f32(originalMaxPositions / lowFrequencyFactor)) return f32(frequency / f32(factor));
  const turns = f32(f32(1 / wavelength) * originalMaxPositions);
  const smooth = f32(f32(turns - f32(lowFrequencyFactor)) / f32(highFrequencyFactor - lowFrequencyFactor));
  const slow = f32(f32(f32(1 - smooth) * frequency) / f32(factor));
  return f32(slow + f32(smooth * frequency));
}
