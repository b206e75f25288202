// What JSON.parse loses is kept beside the values: how numbers were written, and the order of keys that are numbers.

import { describe, expect, test } from "bun:test";
import { changedExact, keysOf, numberText, parseExact, stringifyExact } from "../../src/io/exact-json.ts";
import { Random } from "../../src/words/random.ts";

describe("a text comes back as it was", () => {
  const texts = [
    '{"degrees":20.0,"10":1,"2":2}',
    "[1234567890123456789,-0,-0.0,1e-07,1E+5,0.10,3.00,1.5,1e400,12345678901234567890.5]",
    '{"b":{"7":{"x":1.0},"3":[2.0,{"9":1,"1":2.50}]},"a":[[],{},[1.0]]}',
    '{"text \\"20.0\\" \\\\":20.0,"A":1.0,"4":"1.0","é😀":[1e2]}',
    '"1.0"',
    '{"__proto__":1.0,"5":2,"constructor":3}',
  ];
  for (const text of texts) test(text, () => expect(stringifyExact(parseExact(text))).toBe(text));

  test("with margins, as JSON.stringify makes them", () => {
    const value = parseExact('{"a":[1.0,{"2":[],"1":{}}],"b":"x"}');
    expect(stringifyExact(value, "  ")).toBe(
      '{\n  "a": [\n    1.0,\n    {\n      "2": [],\n      "1": {}\n    }\n  ],\n  "b": "x"\n}',
    );
    expect(stringifyExact({ a: [1, { b: [] }] }, "  ")).toBe(JSON.stringify({ a: [1, { b: [] }] }, null, 2));
  });
});

test("the values are JSON.parse's own, whatever the text", () => {
  const random = new Random(7);
  const pick = (list: string[]) => list[random.next() % list.length]!;
  const scalars = ["1", "20.0", "-1.50", "1e3", '"a,]}\\""', '"\\\\"', "true", "null", "12345678901234567890"];
  const make = (depth: number): string => {
    const kind = depth === 0 ? 0 : random.next() % 3;
    if (kind === 0) return pick(scalars);
    const items = Array.from({ length: random.next() % 4 }, () => make(depth - 1));
    if (kind === 1) return `[ ${items.join(" , ")}]`;
    return `{${items.map((item) => `${pick(['"a"', '"2"', '"1"', '"b\\n"'])} :\t${item}`).join(",")} }`;
  };
  for (let i = 0; i < 500; i++) {
    const text = make(4);
    const value = parseExact(text);
    expect(value).toEqual(JSON.parse(text));
    expect(JSON.parse(stringifyExact(value))).toEqual(JSON.parse(text));
  }
});

test("of a key that is there twice the last counts, at the place of the first, as in Python", () => {
  expect(stringifyExact(parseExact('{"2":{"x":1.0},"1":1,"2":{"x":2}}'))).toBe('{"2":{"x":2},"1":1}');
  expect(stringifyExact(parseExact('{"x":1.0,"x":"1.0"}'))).toBe('{"x":"1.0"}');
});

test("who changes a value has his own; a bigint is a number", () => {
  const value = parseExact('{"2":20.0,"1":[1.0]}') as Record<string, unknown>;
  expect(keysOf(value)).toEqual(["2", "1"]);
  expect(numberText(value, "2")).toBe("20.0");
  value["2"] = 21;
  value["3"] = 12345678901234567890n;
  expect(stringifyExact(value)).toBe('{"2":21,"1":[1.0],"3":12345678901234567890}');
  const config = parseExact('{"9":1.0,"dtype":"a","1":2.0}') as Record<string, unknown>;
  expect(stringifyExact(changedExact(config, { dtype: "b", "1": undefined }))).toBe('{"9":1.0,"dtype":"b"}');
});

test("what is wrong is said as JSON.parse says it, and what is nested without end is no endless call", () => {
  expect(() => parseExact('{"a":1.0,}')).toThrow(SyntaxError);
  for (const depth of [501, 500_000])
    expect(() => parseExact("[".repeat(depth) + "]".repeat(depth))).toThrow("lists and objects are nested too deeply");
  expect(() => parseExact(`{"a":`.repeat(501) + "1.0" + "}".repeat(501))).toThrow("nested too deeply");
  expect(stringifyExact(parseExact("[".repeat(400) + "1.0" + "]".repeat(400)))).toContain("1.0");
});
