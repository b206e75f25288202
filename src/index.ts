// The public API. `train` for most; `load`, `Trainer` and the pieces below for a loop of one's own.

export type { Config, TrainConfig } from "./config.ts";
export * from "./errors.ts";
export { evaluate, exactMatch, type Answer, type EvaluateOptions } from "./evaluate.ts";
export { exportModel, type ExportOptions } from "./export.ts";
export type { GenerateOptions, Prompt } from "./generate.ts";
export { Loader, evaluationBatches, type BatchShape, type MicroBatch, type StepBatch } from "./data/loader.ts";
export { describeData, measureData, type DataDescription, type DescribeOptions } from "./data/data-report.ts";
export type { Dataset, DatasetOptions } from "./data/dataset.ts";
export type { DataInput, DataRecord, DataSource } from "./data/source.ts";
export { run } from "./main.ts";
export { load, Model, type LoadOptions } from "./model.ts";
export { restoreCheckpoint, saveCheckpoint, listCheckpoints } from "./checkpoint.ts";
export { train, type TrainSummary } from "./train.ts";
export { Trainer, type StepResult, type TrainerConfig } from "./trainer.ts";
