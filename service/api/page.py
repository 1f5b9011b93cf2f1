"""The index page: one self-contained document, no asset from anywhere else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from string import Template

from service.profiles import Profile

PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Winnow</title>
<link rel="icon" href="data:,">
<style>
:root { color-scheme: light dark; --accent: #8a5a00; }
@media (prefers-color-scheme: dark) { :root { --accent: #e0b050; } }
body { font: 1rem/1.55 system-ui, sans-serif; max-width: 42rem; margin: 3rem auto; padding: 0 1rem }
h1 { margin: 0; letter-spacing: -.02em }
h1 + p { margin-top: .2rem; opacity: .75 }
form { display: grid; gap: .9rem; margin: 2rem 0; padding: 1.2rem;
       border: 1px solid color-mix(in srgb, currentColor 22%, transparent); border-radius: .6rem }
label { display: grid; gap: .25rem; font-size: .9rem; min-width: 0 }
input, select, button { font: inherit; padding: .45rem .5rem }
.key { margin: 2rem 0 -.8rem }
input, select { width: 100%; box-sizing: border-box; text-overflow: ellipsis }
#about { margin: -.5rem 0 0; font-size: .85rem; opacity: .75 }
button { justify-self: start; padding: .45rem 1.2rem; border: 0; border-radius: .4rem;
         background: var(--accent); color: Canvas; cursor: pointer }
button:disabled { opacity: .5; cursor: progress }
output { display: block; white-space: pre-wrap; min-height: 1.5em }
output small { display: block; margin-top: .5rem; opacity: .7 }
a { color: var(--accent) }
pre { white-space: pre-wrap; overflow-wrap: anywhere; padding: .8rem; border-radius: .4rem;
      background: color-mix(in srgb, currentColor 8%, transparent) }
</style>
</head>
<body>
<h1>Winnow</h1>
<p>Speech to text, made faster by giving the model fewer frames of the audio to read.</p>
$key
<form method="post" action="transcribe" enctype="multipart/form-data">
  <label>Recording <input type="file" name="file" accept="audio/*,video/mp4,video/webm" required>
  </label>
  <label>Profile <select name="profile" aria-describedby="about">$options</select></label>
  <p id="about" aria-live="polite">$about</p>
  <button>Transcribe</button>
  <output aria-live="polite"></output>
</form>
<pre>curl -F file=@speech.wav -F profile=<span id="chosen">$default</span> \
$header<span id="here"></span>transcribe</pre>
<p id="links"><a href="profiles">Profiles</a> · <a href="v1/models">Models</a> ·
<a href="openapi.json">OpenAPI description</a> · <a href="readyz">Readiness</a> ·
<a href="metrics">Metrics</a></p>
<pre id="shown" hidden></pre>
<script>
const about = document.getElementById("about"), key = document.getElementById("key");
document.getElementById("here").textContent = new URL(".", location.href);
const withKey = (options = {}) =>
  key?.value ? { ...options, headers: { authorization: "Bearer " + key.value } } : options;
if (key) {
  key.value = sessionStorage.getItem("winnow-key") ?? "";
  key.addEventListener("input", () => sessionStorage.setItem("winnow-key", key.value));
  // A link sends no key of its own.
  document.getElementById("links").addEventListener("click", async (event) => {
    if (!key.value || !event.target.href) return;
    event.preventDefault();
    const shown = document.getElementById("shown");
    try {
      shown.textContent = await (await fetch(event.target.href, withKey())).text();
    } catch (error) {
      shown.textContent = error.message;
    }
    shown.hidden = false;
  });
}
const form = document.querySelector("form"), picker = form.elements.profile;
const tell = () => {
  about.textContent = picker.selectedOptions[0].dataset.about;
  document.getElementById("chosen").textContent = picker.value;
};
picker.addEventListener("change", tell);
tell();  // a browser may have kept another choice
form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const button = form.querySelector("button"), output = form.querySelector("output");
  button.disabled = true;
  output.textContent = "Listening…";
  try {
    const asked = withKey({ method: "POST", body: new FormData(form) });
    const response = await fetch("transcribe", asked);
    const answer = await response.json();
    if (!response.ok) throw new Error(answer.error.message);
    output.textContent = answer.text || "(no speech found)";
    const note = document.createElement("small");
    note.textContent = `$${answer.duration.toFixed(1)} s of audio, $${answer.language}, ` +
      `$${answer.timings.total.toFixed(2)} s of work, ` +
      `$${answer.frames.kept} of $${answer.frames.total} frames kept`;
    output.append(note);
  } catch (error) {
    output.textContent = error.message;
  } finally {
    button.disabled = false;
  }
});
</script>
</body>
</html>
""")


KEY = """<p class="key"><label>API key, kept in this tab alone
<input type="password" id="key" autocomplete="off" spellcheck="false"></label></p>"""
KEY_HEADER = "-H 'authorization: Bearer KEY' "


@dataclass(frozen=True, slots=True)
class Choice:
    """A profile as the page offers it: `measured` is what is known of it on the model served."""

    profile: Profile
    measured: str

    @property
    def about(self) -> str:
        return f"{self.profile.description} {self.measured}"


def index_html(choices: Sequence[Choice], default: Profile, *, asks_key: bool) -> str:
    """The page, with every profile in its picker and `default` chosen and told about.

    `asks_key`: with a field for the API key, without which nothing else is answered.
    """
    options = "".join(
        f'<option value="{escape(choice.profile.name)}" data-about="{escape(choice.about)}"'
        f"{' selected' if choice.profile.name == default.name else ''}>"
        f"{escape(choice.profile.name)}</option>"
        for choice in choices
    )
    about = next(choice.about for choice in choices if choice.profile.name == default.name)
    return PAGE.substitute(
        options=options,
        default=escape(default.name),
        about=escape(about),
        key=KEY if asks_key else "",
        header=KEY_HEADER if asks_key else "",
    )
