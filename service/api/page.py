"""The pages: self-contained documents, no asset from anywhere else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from string import Template

from service.profiles import Profile

STYLE = """:root { color-scheme: light dark; --accent: #8a5a00; }
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
button.quiet { background: none; color: inherit; box-shadow: inset 0 0 0 1px currentColor }
.buttons { display: flex; flex-wrap: wrap; gap: .6rem }
.check { display: flex; gap: .5rem; align-items: baseline }
.check input { width: auto }
button:disabled { opacity: .5; cursor: progress }
output { display: block; white-space: pre-wrap; min-height: 1.5em }
output small { display: block; margin-top: .5rem; opacity: .7 }
a { color: var(--accent) }
pre { white-space: pre-wrap; overflow-wrap: anywhere; padding: .8rem; border-radius: .4rem;
      background: color-mix(in srgb, currentColor 8%, transparent) }
"""

SCRIPT = """const about = document.getElementById("about"), key = document.getElementById("key");
const form = document.querySelector("form"), picker = form.elements.profile;
const output = form.querySelector("output");
const withKey = (options = {}) =>
  key?.value ? { ...options, headers: { authorization: "Bearer " + key.value } } : options;
if (key) {
  key.value = sessionStorage.getItem("winnow-key") ?? "";
  key.addEventListener("input", () => sessionStorage.setItem("winnow-key", key.value));
}
const tell = () => {
  about.textContent = picker.selectedOptions[0].dataset.about;
  const chosen = document.getElementById("chosen");
  if (chosen) chosen.textContent = picker.value;
};
picker.addEventListener("change", tell);
form.elements.model?.addEventListener("change", (event) => {
  const chosen = picker.value, theirs = document.getElementById("of " + event.target.value);
  picker.replaceChildren(...theirs.content.cloneNode(true).children);
  picker.value = [...picker.options].some((one) => one.value === chosen) ? chosen : picker.value;
  const model = document.getElementById("model");
  if (model) model.textContent = event.target.value;
  tell();
});
tell();  // a browser may have kept another choice
const post = async (path) => {
  const response = await fetch(path, withKey({ method: "POST", body: new FormData(form) }));
  if (!response.ok) throw new Error((await response.json()).error.message);
  return response;
};
const working = async (said, work) => {
  const buttons = [...form.querySelectorAll("button")];
  buttons.forEach((button) => { button.disabled = true; });
  output.textContent = said;
  try {
    await work();
  } catch (error) {
    output.textContent = error.message;
  } finally {
    buttons.forEach((button) => { button.disabled = false; });
  }
};
const explain = () => working("Drawing…", async () => {
  const page = await (await post("explain")).blob();
  output.textContent = "";
  location.assign(URL.createObjectURL(page));
});
"""

HEAD = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<link rel="icon" href="data:,">
<style>
$style</style>
</head>
<body>
"""

FIELDS = """  <label>Recording
  <input type="file" name="file" accept="audio/*,video/mp4,video/webm" required></label>
$models  <label>Profile <select name="profile" aria-describedby="about">$options</select></label>
  <p id="about" aria-live="polite">$about</p>
"""

PAGE = Template(
    HEAD
    + """<h1>Winnow</h1>
<p>Speech to text, made faster by giving the model fewer frames of the audio to read.</p>
$key
<form method="post" action="transcribe" enctype="multipart/form-data">
"""
    + FIELDS
    + """  <div class="buttons"><button>Transcribe</button>$explain</div>
  <output aria-live="polite"></output>
</form>
<pre>curl -F file=@speech.wav $named-F profile=<span id="chosen">$default</span> \
$header<span id="here"></span>transcribe</pre>
<p id="links"><a href="profiles">Profiles</a> · <a href="v1/models">Models</a> ·
<a href="openapi.json">OpenAPI description</a> · <a href="readyz">Readiness</a> ·
<a href="metrics">Metrics</a></p>
<pre id="shown" hidden></pre>
<script>
$script
document.getElementById("here").textContent = new URL(".", location.href);
// A link sends no key of its own.
document.getElementById("links").addEventListener("click", async (event) => {
  if (!key?.value || !event.target.href) return;
  event.preventDefault();
  const shown = document.getElementById("shown");
  try {
    shown.textContent = await (await fetch(event.target.href, withKey())).text();
  } catch (error) {
    shown.textContent = error.message;
  }
  shown.hidden = false;
});
const transcribe = () => working("Listening…", async () => {
  const answer = await (await post("transcribe")).json();
  output.textContent = answer.text || "(no speech found)";
  const note = document.createElement("small");
  note.textContent = `$${answer.duration.toFixed(1)} s of audio, $${answer.language}, ` +
    `$${answer.timings.total.toFixed(2)} s of work, ` +
    `$${answer.frames.kept} of $${answer.frames.total} frames kept`;
  output.append(note);
});
form.addEventListener("submit", (event) => {
  event.preventDefault();
  if (event.submitter?.hasAttribute("formaction")) explain();
  else transcribe();
});
</script>
</body>
</html>
"""
)

EXPLAIN_PAGE = Template(
    HEAD
    + """<h1>What is kept</h1>
<p>A recording as <a href="./">Winnow</a> reads it under a profile: the frames that are kept,
merged and dropped, the attention that they receive, and the words, beside dense's.</p>
$key
<form method="post" action="explain" enctype="multipart/form-data">
"""
    + FIELDS
    + """  <label class="check"><input type="checkbox" name="audio" value="true">
  with the recording in the page, to be heard</label>
  <div class="buttons"><button>Draw</button></div>
  <output aria-live="polite"></output>
</form>
<script>
$script
form.addEventListener("submit", (event) => {
  event.preventDefault();
  explain();
});
</script>
</body>
</html>
"""
)


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


# What the profiles of each model are stands beside its name, for whoever chooses another.
MODELS = Template("""  <label>Model <select name="model">$names</select></label>
  $profiles
""")
NAMED = '-F model=<span id="model">{}</span> '
Offer = Mapping[str, Sequence[Choice]]  # what there is of each model, the first one first

EXPLAIN = '<button formaction="explain" class="quiet">Show what is kept</button>'


def index_html(offer: Offer, default: str, *, asks_key: bool, explains: bool = False) -> str:
    """The page, with every profile in its picker, the one named `default` chosen and told about;
    and every model, where there are several.

    `asks_key`: with a field for the API key, without which nothing else is answered. `explains`:
    with a button for what `/explain` draws.
    """
    return PAGE.substitute(
        _fields(offer, default, asks_key),
        title="Winnow",
        default=escape(default),
        named=NAMED.format(escape(next(iter(offer)))) if len(offer) > 1 else "",
        header=KEY_HEADER if asks_key else "",
        explain=EXPLAIN if explains else "",
    )


def explain_html(offer: Offer, default: str, *, asks_key: bool) -> str:
    """The form for what `/explain` draws."""
    return EXPLAIN_PAGE.substitute(_fields(offer, default, asks_key), title="What is kept - Winnow")


def _fields(offer: Offer, default: str, asks_key: bool) -> dict[str, str]:
    first = next(iter(offer.values()))
    return {
        "style": STYLE,
        "script": SCRIPT,
        "models": _models(offer, default) if len(offer) > 1 else "",
        "options": _options(first, default),
        "about": escape(next(choice.about for choice in first if choice.profile.name == default)),
        "key": KEY if asks_key else "",
    }


def _models(offer: Offer, default: str) -> str:
    return MODELS.substitute(
        names="".join(f'<option value="{escape(name)}">{escape(name)}</option>' for name in offer),
        profiles="".join(
            f'<template id="of {escape(name)}">{_options(choices, default)}</template>'
            for name, choices in offer.items()
        ),
    )


def _options(choices: Sequence[Choice], default: str) -> str:
    return "".join(
        f'<option value="{escape(choice.profile.name)}" data-about="{escape(choice.about)}"'
        f"{' selected' if choice.profile.name == default else ''}>"
        f"{escape(choice.profile.name)}</option>"
        for choice in choices
    )
