// Python's arithmetic: whole numbers of any size, floors towards minus infinity, floats that are written with the shortest digits
// that mean them, and rounding of halves to even.

import { checkLength, made, spend, TemplateError, TemplateLimitError, unsupported } from "./limits.ts";
import {
  Float,
  int,
  isInt,
  isTuple,
  madeList,
  Markup,
  numeric,
  spaces,
  Tuple,
  typeName,
  Undefined,
  type Int,
  type Value,
} from "./values.ts";

const spacesAround = new RegExp(`^[${spaces}]+|[${spaces}]+$`, "g");

/** Bits of an int that a template may make: Python prints none of more than 4,300 digits. */
const bitsMax = 100_000;
const bits = (value: Int): number => BigInt(value).toString(16).length * 4;

function checkBits(count: number): void {
  if (count > bitsMax)
    throw new TemplateLimitError(`makes a number of ${Math.round(count)} bits, the limit is ${bitsMax}`);
  spend(count / 8);
}

/** Python's int(): of a float towards zero, of a text by its digits; undefined for what is none. */
export function toInt(value: Value): Int | undefined {
  if (isInt(value)) return numeric(value)!;
  if (value instanceof Float) {
    if (!Number.isFinite(value.value))
      throw new TemplateError(`cannot convert float ${floatText(value.value)} to integer`);
    return int(BigInt(Math.trunc(value.value)));
  }
  const text = typeof value === "string" ? asciiNumber(value) : undefined;
  return text !== undefined && /^[+-]?\d+(_\d+)*$/.test(text)
    ? int(BigInt(text.replaceAll("_", "").replace("+", "")))
    : undefined;
}

/** Python's float(); undefined for what is none. */
export function toFloat(value: Value): Float | undefined {
  const number = numeric(value);
  if (number !== undefined) return float(Number(number), number);
  const text = typeof value === "string" ? asciiNumber(value) : undefined;
  if (text === undefined) return undefined;
  const word = /^([+-]?)(?:(inf|infinity)|nan)$/i.exec(text);
  if (word) return new Float(word[2] === undefined ? NaN : word[1] === "-" ? -Infinity : Infinity);
  const digits = String.raw`\d+(?:_\d+)*`;
  const pattern = new RegExp(
    String.raw`^[+-]?(?:${digits}(?:\.(?:${digits})?)?|\.${digits})(?:e[+-]?${digits})?$`,
    "i",
  );
  return pattern.test(text) ? new Float(Number(text.replaceAll("_", ""))) : undefined;
}

function float(value: number, from: Int): Float {
  if (typeof from === "bigint" && !Number.isFinite(value)) throw new TemplateError("int too large to convert to float");
  return new Float(value);
}

function asciiNumber(text: string): string {
  if (/\p{Nd}/u.test(text.replace(/[0-9]+/g, ""))) throw unsupported("digits of another script as a number");
  return text.replace(spacesAround, "");
}

/** As Python writes a float: the shortest digits that mean it, 1e-07, 1e+16, 20.0. */
export function floatText(value: number): string {
  if (Number.isNaN(value)) return "nan";
  if (!Number.isFinite(value)) return value > 0 ? "inf" : "-inf";
  const [, sign, first, rest = "", raised] = /^(-?)(\d)(?:\.(\d+))?e([+-]\d+)$/.exec(value.toExponential())!;
  const exponent = Number(raised);
  const minus = Object.is(value, -0) ? "-" : sign!;
  if (exponent < -4 || exponent >= 16) {
    const power = String(Math.abs(exponent)).padStart(2, "0");
    return `${minus}${first}${rest && `.${rest}`}e${exponent < 0 ? "-" : "+"}${power}`;
  }
  const digits = first! + rest;
  if (exponent < 0) return `${minus}0.${"0".repeat(-exponent - 1)}${digits}`;
  return `${minus}${digits.slice(0, exponent + 1).padEnd(exponent + 1, "0")}.${digits.slice(exponent + 1) || "0"}`;
}

/** To so many digits behind the point, exactly half to even, as Python rounds. */
export function toFixed(value: number, digits: number): string {
  if (digits > 60 || Math.abs(value) >= 1e21) throw unsupported(`rounding of ${value} to ${digits} digits`);
  const text = value.toFixed(digits);
  const exact = value.toFixed(Math.min(100, digits + 40)); // a half has no more digits than this, or is none
  const cut = exact.length - (Math.min(100, digits + 40) - digits);
  if (!/^50*$/.test(exact.slice(cut).replace(".", ""))) return text;
  const down = exact.slice(0, cut).replace(/\.$/, ""); // towards zero
  return Number(down.at(-1)) % 2 === 0
    ? down
    : text.replace("-", "") === down.replace("-", "")
      ? awayFrom(down, digits)
      : text;
}

/** The next decimal number with so many digits, further from zero. */
function awayFrom(text: string, digits: number): string {
  const sign = text.startsWith("-") ? "-" : "";
  const next = String(BigInt(text.replace(/[-.]/g, "")) + 1n).padStart(digits + 1, "0");
  return sign + (digits === 0 ? next : `${next.slice(0, -digits)}.${next.slice(-digits)}`);
}

const mod = (a: number, b: number): number => {
  const rest = a % b;
  return rest !== 0 && rest < 0 !== b < 0 ? rest + b : rest === 0 ? (b < 0 || Object.is(b, -0) ? -0 : 0) : rest;
};

export type Operator = "+" | "-" | "*" | "/" | "//" | "%" | "**";

/** A binary operator of Python. */
export function operate(operator: Operator, a: Value, b: Value): Value {
  if (operator === "+" && typeof a === "string" && typeof b === "string") return made(a + b);
  const x = numeric(a);
  const y = numeric(b);
  if (x !== undefined && y !== undefined) {
    if (a instanceof Float || b instanceof Float)
      return operateFloats(operator, float(Number(x), x).value, float(Number(y), y).value);
    return operateInts(operator, x, y);
  }
  if (a instanceof Undefined) a.fail();
  if (b instanceof Undefined) b.fail();
  if (a instanceof Markup || b instanceof Markup) throw unsupported(`"${operator}" with text that was marked as safe`);
  if (operator === "+" && Array.isArray(a) && Array.isArray(b) && isTuple(a) === isTuple(b))
    return madeList(isTuple(a) ? Tuple.from([...a, ...b]) : [...a, ...b]);
  if (operator === "*") {
    const [list, count] = isInt(a) ? [b, a] : [a, b];
    if (isInt(count) && (typeof list === "string" || Array.isArray(list))) return repeat(list, Number(count));
  }
  throw new TemplateError(`unsupported operand types for ${operator}: "${typeName(a)}" and "${typeName(b)}"`);
}

function repeat(value: string | Value[], count: number): Value {
  const times = Math.max(0, count);
  checkLength(value.length * times * (typeof value === "string" ? 1 : 8));
  if (typeof value === "string") return value.repeat(times);
  const items = Array.from({ length: times }, () => [...value]).flat();
  return isTuple(value) ? Tuple.from(items) : items;
}

function operateInts(operator: Operator, a: Int, b: Int): Value {
  if (b === 0 && (operator === "/" || operator === "//" || operator === "%"))
    throw new TemplateError("division by zero");
  if (typeof a === "number" && typeof b === "number") {
    if (operator === "/") return new Float(a / b);
    const result =
      operator === "+"
        ? a + b
        : operator === "-"
          ? a - b
          : operator === "*"
            ? a * b
            : operator === "//"
              ? Math.floor(a / b)
              : operator === "%"
                ? mod(a, b)
                : NaN;
    if (Number.isSafeInteger(result) && (operator !== "//" || Math.abs(a) < 2 ** 52)) return result + 0;
  }
  const [x, y] = [BigInt(a), BigInt(b)];
  switch (operator) {
    case "+":
      return int(x + y);
    case "-":
      return int(x - y);
    case "*":
      checkBits(bits(x) + bits(y));
      return int(x * y);
    case "/":
      throw unsupported("division of whole numbers beyond 2^53");
    case "//":
      return int((x - (((x % y) + y) % y)) / y);
    case "%":
      return int(((x % y) + y) % y);
    case "**":
      if (y < 0n) return operateFloats("**", Number(x), Number(y));
      checkBits(x * x <= 1n ? 1 : bits(x) * Number(y));
      return int(x ** y);
  }
}

function operateFloats(operator: Operator, a: number, b: number): Float {
  if (b === 0 && (operator === "/" || operator === "//" || operator === "%"))
    throw new TemplateError("float division by zero");
  switch (operator) {
    case "+":
      return new Float(a + b);
    case "-":
      return new Float(a - b);
    case "*":
      return new Float(a * b);
    case "/":
      return new Float(a / b);
    case "%":
      return new Float(mod(a, b));
    case "//": {
      const rest = a % b;
      const quotient = (a - rest) / b - (rest !== 0 && rest < 0 !== b < 0 ? 1 : 0);
      const floor = Math.floor(quotient);
      return new Float(quotient === 0 ? (a / b < 0 ? -0 : 0) : quotient - floor > 0.5 ? floor + 1 : floor);
    }
    case "**": {
      if (a === 0 && b < 0) throw new TemplateError("0.0 cannot be raised to a negative power");
      if (a < 0 && !Number.isInteger(b) && Number.isFinite(b)) throw unsupported("complex numbers");
      const power = a === 1 || (a === -1 && !Number.isFinite(b)) ? 1 : a ** b;
      if (!Number.isFinite(power) && Number.isFinite(a) && Number.isFinite(b))
        throw new TemplateError("the result of ** is too large");
      return new Float(power);
    }
  }
}

export function negate(value: Value): Value {
  if (value instanceof Undefined) value.fail();
  if (value instanceof Float) return new Float(-value.value);
  if (isInt(value)) return operateInts("-", 0, numeric(value)!);
  throw new TemplateError(`bad operand type for unary -: "${typeName(value)}"`);
}
