// OpenAI's client for Node, unchanged, against a running Winnow: node openai-node.mjs URL RECORDING
import assert from "node:assert/strict";
import fs from "node:fs";
import OpenAI from "openai";

const [url, recording] = process.argv.slice(2);
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: process.env.WINNOW_API_KEY ?? "none", maxRetries: 0 });
const file = () => fs.createReadStream(recording);
const { transcriptions, translations } = client.audio;

const plain = await transcriptions.create({
  model: "gpt-transcribe",
  file: file(),
  languages: ["en", "de"],
  keywords: ["movable types", "printing"],
  include: ["logprobs"],
  chunking_strategy: { type: "server_vad", threshold: 0.5 },
});
assert.ok(plain.text && plain.logprobs.length > 0);
assert.equal(plain.usage.type, "duration");
console.log("json        ", plain.text);
console.log("languages   ", JSON.stringify(plain.languages), "logprobs", plain.logprobs.length);
console.log("warnings    ", JSON.stringify(plain.warnings.map((one) => one.param)));

const verbose = await transcriptions.create({
  model: "whisper-1",
  file: file(),
  language: "en",
  response_format: "verbose_json",
  timestamp_granularities: ["word", "segment"],
});
assert.ok(verbose.words.every((word) => word.start < word.end));
assert.ok(verbose.segments.every((segment) => segment.start < segment.end));
console.log("verbose_json", verbose.segments.length, "segments,", verbose.words.length, "words, last",
  JSON.stringify(verbose.words.at(-1)));

for (const response_format of ["text", "srt", "vtt"]) {
  const answer = await transcriptions.create({ model: "whisper-1", file: file(), response_format });
  assert.equal(typeof answer, "string");
  console.log(response_format.padEnd(12), JSON.stringify(answer.slice(0, 60)));
}

let joined = "";
const seen = [];
for await (const event of await transcriptions.create({ model: "gpt-4o-transcribe", file: file(), stream: true })) {
  seen.push(event.type);
  if (event.type === "transcript.text.delta") joined += event.delta;
  if (event.type === "transcript.text.done") assert.equal(event.text, joined);
}
assert.equal(seen.at(-1), "transcript.text.done");
console.log("stream      ", seen.join(" "));

const english = await translations.create({ model: "whisper-1", file: file() });
assert.ok(english.text);
console.log("translation ", english.text);

const listed = [];
for await (const model of client.models.list()) listed.push(model.id);
assert.ok(listed.includes("whisper-1"));
console.log("models      ", listed.join(" "));
await assert.rejects(
  transcriptions.create({ model: "gpt-5", file: file() }),
  (error) => error.status === 404 && error.code === "model_not_found",
);
console.log("ok           openai-node");
