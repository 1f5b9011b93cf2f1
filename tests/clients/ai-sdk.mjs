// Vercel's AI SDK, unchanged, against a running Winnow: node ai-sdk.mjs URL RECORDING
import assert from "node:assert/strict";
import fs from "node:fs";
import { createOpenAI } from "@ai-sdk/openai";
import { experimental_transcribe as transcribe } from "ai";

const [url, recording] = process.argv.slice(2);
const openai = createOpenAI({ baseURL: `${url}/v1`, apiKey: process.env.WINNOW_API_KEY ?? "none" });
const audio = fs.readFileSync(recording);

for (const name of ["whisper-1", "gpt-4o-transcribe", "gpt-4o-mini-transcribe"]) {
  const answer = await transcribe({
    model: openai.transcription(name),
    audio,
    maxRetries: 0,
    providerOptions: { openai: { language: "en", timestampGranularities: ["word"] } },
  });
  assert.ok(answer.text);
  console.log(name.padEnd(22), answer.segments.length, "segments,", answer.text.slice(0, 50));
}
console.log("ok                     ai-sdk");
