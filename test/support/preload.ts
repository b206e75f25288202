// Before any test: `device: "auto"` is the CPU, whatever the machine has, in this process and those that tests start. Tests of
// a GPU name it.

import "../../src/words/real-environment.ts"; // first: it takes back what no user gave

process.env["SLUICE_DEVICE"] ??= "cpu";
