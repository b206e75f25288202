// The public API. `train` for most; `load`, `Trainer` and the pieces below for a loop of one's own.

export type { Callbacks, CheckpointSaved, Verdict } from "./callbacks.ts";
export { trainConfig } from "./cli/train.ts";
export { parseConfig, type Config, type TrainConfig } from "./config.ts";
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
} from "./errors.ts";
export { evaluate, exactMatch, type Answer, type EvaluateOptions } from "./evaluate.ts";
export { exportModel, type ExportOptions } from "./export.ts";
export { exportCheckpoint, type ExportCheckpointOptions } from "./export-checkpoint.ts";
export type { GenerateOptions, Prompt } from "./generate.ts";
export type { ChatLoss, Message } from "./data/chat.ts";
export { describeData, measureData, type DataDescription, type DescribeOptions } from "./data/data-report.ts";
export type { Dataset, DatasetOptions, DatasetReport } from "./data/dataset.ts";
export {
  Loader,
  evaluationBatches,
  type BatchShape,
  type LoaderState,
  type MicroBatch,
  type StepBatch,
} from "./data/loader.ts";
export { StreamLoader } from "./data/stream-loader.ts";
export { TokenStream, type StreamOptions } from "./data/stream.ts";
export type { DataInput, DataRecord, DataSource } from "./data/source.ts";
export { run } from "./main.ts";
export { load, Model, type LoadOptions } from "./model.ts";
export { listCheckpoints, restoreCheckpoint, saveCheckpoint, type Manifest } from "./checkpoint.ts";
export type { EvaluationMetrics, StepMetrics } from "./metrics.ts";
export { writeComparison, writeReport } from "./report.ts";
export { addAnswers } from "./run-folder.ts";
export { train, type TrainSummary } from "./train.ts";
export { Trainer, type StepResult, type TrainerConfig } from "./trainer.ts";
