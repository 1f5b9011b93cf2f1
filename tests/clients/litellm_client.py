"""LiteLLM, unchanged, against a running Winnow: python litellm_client.py URL RECORDING"""

import os
import sys

import litellm  # type: ignore[import-not-found]

url, recording = sys.argv[1:]
for model in ("openai/whisper-1", "openai/gpt-4o-transcribe"):
    for response_format in ("json", "verbose_json", "text"):
        with open(recording, "rb") as file:
            answer = litellm.transcription(
                model=model,
                file=file,
                api_base=f"{url}/v1",
                api_key=os.environ.get("WINNOW_API_KEY", "none"),
                language="en",
                response_format=response_format,
            )
        text = answer if isinstance(answer, str) else answer.text
        assert text.strip()
        print(model.ljust(25), response_format.ljust(13), text.strip()[:50])
print("ok".ljust(25), "litellm", flush=True)
