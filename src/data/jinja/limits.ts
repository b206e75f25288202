// What a rendering may take. A template is a program that somebody else wrote: whatever it makes is counted while it is made, and the
// clock is looked at now and then, so that it ends.

/** What a template may not do, or what is not there, in words for whoever wrote it. */
export class TemplateError extends Error {}

/** A template that took too long or made too much. */
export class TemplateLimitError extends Error {}

/** For what exists in Python: never other text, always its name. */
export const unsupported = (what: string): TemplateError =>
  new TemplateError(`uses ${what}, which Jinja has and Sluice does not; replace it in the template`);

/** What a rendering may take. */
export interface RenderLimits {
  /** Of the clock. */
  milliseconds: number;
  /** Letters of one text; four million tokens of a conversation. */
  textMax: number;
  /** Letters of all texts, elements of all lists and rounds of all loops on the way. */
  madeMax: number;
}
let limits: RenderLimits = { milliseconds: Infinity, textMax: 2 ** 24, madeMax: Infinity };
let left = Infinity;
let nextLook = -Infinity;
let deadline = Infinity;
let callDepth = 0;
/** Macros inside macros; Python's own stack ends soon after. */
const callDepthMax = 200;
/** How often the clock is looked at: after so much work. */
const lookEvery = 2 ** 15;

/** Runs something within limits. */
export function within<T>(given: RenderLimits, work: () => T): T {
  const before = { limits, left, nextLook, deadline };
  limits = given;
  left = given.madeMax;
  nextLook = left - lookEvery;
  deadline = performance.now() + given.milliseconds;
  try {
    return work();
  } catch (error) {
    if (error instanceof RangeError && /call stack/.test(error.message))
      throw new TemplateError("calls itself, or nests, without end (the call stack is full)");
    throw error;
  } finally {
    ({ limits, left, nextLook, deadline } = before);
  }
}

/** Counts work: letters of a text, elements of a list, rounds of a loop. */
export function spend(count: number): void {
  if ((left -= count) < nextLook) look();
}

/** Runs the body of a macro, which may call itself. */
export function called<T>(work: () => T): T {
  if (callDepth === callDepthMax) throw new TemplateError(`calls itself more than ${callDepthMax} times inside itself`);
  callDepth++;
  try {
    return work();
  } finally {
    callDepth--;
  }
}

function look(): void {
  if (left < 0) throw new TemplateLimitError(`makes more than ${limits.madeMax} letters on its way`);
  nextLook = left - lookEvery;
  if (performance.now() > deadline) throw new TemplateLimitError(`was stopped after ${limits.milliseconds / 1000} s`);
}

/** Counts a text before it is made. */
export function checkLength(length: number): void {
  if (length > limits.textMax)
    throw new TemplateLimitError(`makes a text of ${length} letters, the limit is ${limits.textMax}`);
  spend(length + 1);
}

export function made(text: string): string {
  checkLength(text.length);
  return text;
}

/** A text with another behind it: only that is counted, for this is how long texts come to be. */
export function grown(text: string, more: string): string {
  const result = text + more;
  if (result.length > limits.textMax) checkLength(result.length);
  spend(more.length + 1);
  return result;
}
