// The public API. `train` for most; `load`, `Trainer` and the pieces below for a loop of one's own.

import "./words/real-environment.ts";

export type { Callbacks, CheckpointSaved, Verdict } from "./run/callbacks.ts";
export { trainConfig } from "./cli/train.ts";
export { parseConfig, type Config, type TrainConfig } from "./run/config.ts";
export {
  CallbackError,
  CancelledError,
  CheckpointError,
  ConfigError,
  DataError,
  MemoryError,
  ModelError,
  NativeError,
  RunBusyError,
  SluiceError,
  StepError,
} from "./words/errors.ts";
export { evaluate, exactMatch, type Answer, type EvaluateOptions } from "./engine/evaluate.ts";
export { exportModel, type ExportOptions } from "./keep/export.ts";
export { exportCheckpoint, type ExportCheckpointOptions } from "./keep/export-checkpoint.ts";
export type { GenerateOptions, Prompt } from "./engine/generate.ts";
export type { ChatLoss, Message } from "./data/text/chat.ts";
export { describeData, measureData, type DataDescription, type DescribeOptions } from "./data/data-report.ts";
export type { Dataset, DatasetOptions, DatasetReport } from "./data/dataset.ts";
export type { Batches, BatchShape, LoaderState, MicroBatch, StepBatch } from "./data/batches.ts";
export { Loader, evaluationBatches } from "./data/loader.ts";
export { StreamLoader } from "./data/stream-loader.ts";
export { TokenStream, type StreamOptions } from "./data/stream.ts";
export type { DataInput, DataRecord, DataSource } from "./data/read/source.ts";
export { run } from "./cli/main.ts";
export { load, Model, type LoadOptions } from "./engine/model.ts";
export { listCheckpoints, restoreCheckpoint, saveCheckpoint, type Manifest } from "./keep/checkpoint.ts";
export type { EvaluationMetrics, StepMetrics } from "./keep/metrics.ts";
export { writeComparison, writeReport } from "./view/report.ts";
export { addAnswers } from "./keep/run-folder.ts";
export { train, type TrainSummary } from "./run/train.ts";
export { Trainer, type StepResult, type TrainerConfig } from "./engine/trainer.ts";
